"""Requests from bytes: measured before they are parsed, and explained when they are broken.

protobuf builds a whole message in one call that nothing interrupts, and an empty document, two
bytes on the wire, takes a hundred in memory: 16 MiB of them stop the event loop for half a second
and take half a gigabyte. A large message is therefore measured first, by a walk over its bytes that
builds nothing and stops at a limit. Explaining a broken message is another such walk, so that it
cannot cost more than the message would have.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from actvec.server.calls.budget import purse
from actvec.server.errors import MessageTooLargeError, RequestError

# Bytes of a message that is parsed as it is, and of one that is measured on the event loop: a few
# milliseconds at the worst.
_TINY, _SMALL = 1 << 12, 1 << 16

# Fields of a message for each document that it may hold: more than a document has.
_FIELDS_PER_DOCUMENT = 8

# Bytes of memory for a field on the wire, whatever it holds: an empty message of ours and its place
# in a list, which has grown by doubling.
_FIELD_BYTES = 128

_VARINT, _FIXED64, _DELIMITED, _GROUP, _END_GROUP, _FIXED32 = range(6)
_LONGEST_VARINT = 10

_STRING = FieldDescriptor.TYPE_STRING

Result = TypeVar("Result")


class Decoder:
    """Makes messages of one type from bytes.

    Args:
        descriptor: The type.
        most_documents: Items of a list of messages that one message may hold.
        thread: Where large messages are measured and parsed.
    """

    def __init__(
        self, descriptor: Descriptor, most_documents: int, thread: Executor | None = None
    ) -> None:
        self._name = descriptor.full_name
        self._message = message_factory.GetMessageClass(descriptor)
        self._shape = _Shape.of(descriptor)
        self._most_items = most_documents
        self._most_fields = max(_FIELDS_PER_DOCUMENT * most_documents, _TINY // 2)
        self._thread = thread

    async def messages(self, raws: AsyncIterable[bytes]) -> AsyncGenerator[Message, None]:
        """The messages of a call. The call's purse holds each until the next is asked for.

        Raises:
            RequestError: as `one`.
            BusyError: as `one`.
        """
        iterator = aiter(raws)
        while (raw := await anext(iterator, None)) is not None:
            with purse().holding(_raw_bytes(raw)):
                fields = await self._measured(raw)
                with purse().holding(fields * _FIELD_BYTES):
                    message = await self._in_thread(self._parse, raw)
                    # Neither is kept alive from here while the next one is awaited.
                    del raw
                    yield message
                    del message

    async def one(self, raw: bytes) -> Message:
        """The message of a unary call. The call's purse holds it to the call's end.

        Raises:
            MessageTooLargeError: it has more parts than a message may have.
            RequestError: the bytes are no message; names the string that is not UTF-8.
            BusyError: there is no memory for it.
        """
        purse().take(_raw_bytes(raw))
        purse().take(await self._measured(raw) * _FIELD_BYTES)
        return await self._in_thread(self._parse, raw)

    def parse(self, raw: bytes) -> Message:
        """Measure and parse on this thread.

        Raises:
            RequestError: as `one`.
        """
        self.fields(raw)
        return self._parse(raw)

    def fields(self, raw: bytes) -> int:
        """How many fields a message has, with those of the messages in it; at most so many.

        Raises:
            MessageTooLargeError: they, or the items of a list, are more than a message may have.
            RequestError: the bytes are no message.
        """
        return len(raw) // 2 if len(raw) <= _TINY else self.walk(raw)

    def walk(self, raw: bytes) -> int:
        """Count the fields of a message of any size; see `fields`."""
        count = _Count()
        try:
            self._count_fields(count, _Part(raw, 0, len(raw)), self._shape, "")
        except _MalformedError:
            raise self._no_message() from None
        return count.fields

    async def _measured(self, raw: bytes) -> int:
        return await self._in_thread(self.fields, raw)

    async def _in_thread(self, function: Callable[[bytes], Result], raw: bytes) -> Result:
        """Apply a function to a message, to a large one off the event loop."""
        if len(raw) <= _SMALL:
            return function(raw)
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, raw)

    def _parse(self, raw: bytes) -> Message:
        try:
            return self._message.FromString(raw)
        except DecodeError:
            pass
        raise self.explain(raw)

    def explain(self, raw: bytes) -> RequestError:
        """What is wrong with bytes that are no message."""
        try:
            path = next(_not_utf8(_Part(raw, 0, len(raw)), self._shape, ""), None)
        except _MalformedError:
            path = None
        if path is None:
            return self._no_message()
        return RequestError(path, "is not UTF-8; texts and names are sent as UTF-8")

    def _no_message(self) -> RequestError:
        return RequestError("request", f"is not a {self._name} message")

    def _count_fields(self, count: "_Count", part: "_Part", shape: "_Shape", path: str) -> None:
        """Count the fields of a message and of those in it, and refuse too many."""
        for number, kind, start, stop in _fields(part):
            count.fields += 1
            if count.fields > self._most_fields:
                raise MessageTooLargeError(
                    "request", f"has more than {self._most_fields} fields; send less at a time"
                )
            field = shape.fields.get(number)
            if field is None or kind != _DELIMITED:
                continue
            if field.repeated:
                name = f"{path}{field.name}"
                count.items[name] += 1
                if count.items[name] > self._most_items:
                    raise MessageTooLargeError(
                        name,
                        f"are more than {self._most_items}, the limit of one message; "
                        "send the rest in another",
                    )
            if field.shape is not None:
                inner = _Part(part.raw, start, stop)
                self._count_fields(count, inner, field.shape, f"{path}{field.name}.")


class _Count:
    """What a walk has come past.

    Attributes:
        fields: Fields of any kind.
        items: Items of each list, by its path: protobuf joins lists that come in pieces.
    """

    def __init__(self) -> None:
        self.fields = 0
        self.items: Counter[str] = Counter()


@dataclass(frozen=True, eq=False)
class _Shape:
    """A type of message: the fields of it that have bytes of their own, by their number."""

    fields: "dict[int, _Field]"

    @classmethod
    def of(cls, descriptor: Descriptor) -> "_Shape":
        return cls(
            {
                field.number: _Field(
                    field.name,
                    bool(field.is_repeated),
                    field.type == _STRING,
                    None if field.message_type is None else cls.of(field.message_type),
                )
                for field in descriptor.fields
                if field.message_type is not None
                or field.type in {_STRING, FieldDescriptor.TYPE_BYTES}
            }
        )


class _Field(NamedTuple):
    """A field: a message (which has a shape), a string, or bytes."""

    name: str
    repeated: bool
    string: bool
    shape: _Shape | None


class _Part(NamedTuple):
    """Bytes from `begin` to `end` of a message: all of it, or a message in it."""

    raw: bytes
    begin: int
    end: int


class _MalformedError(Exception):
    """Bytes are not fields."""


def _fields(part: _Part) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message: number, kind, and where what it holds begins and ends.

    What is in a group, of which our contract has none, is passed over with it.
    """
    raw, at, end = part
    groups = 0
    while at < end:
        tag = raw[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(raw, at - 1)
        number, kind = tag >> 3, tag & 7
        start = at
        if kind == _DELIMITED:
            if at >= end:
                raise _MalformedError
            length = raw[at]
            start = at + 1
            if length >= 0x80:
                length, start = _varint(raw, at)
            at = start + length
        elif kind == _VARINT:
            _, at = _varint(raw, at)
        elif kind in {_FIXED64, _FIXED32}:
            at += 8 if kind == _FIXED64 else 4
        elif kind == _GROUP:
            groups += 1
        elif kind == _END_GROUP and groups:
            groups -= 1
        else:
            raise _MalformedError
        if at > end or not number:
            raise _MalformedError
        # The fields of a group still count as fields, of a number that no message has.
        yield (0 if groups else number), kind, start, at
    if groups:
        raise _MalformedError


def _raw_bytes(raw: bytes) -> int:
    """Bytes of memory that a message takes as it came and, but for its fields, parsed."""
    return 2 * len(raw)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = 0
    for index, byte in enumerate(raw[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise _MalformedError


def _not_utf8(part: _Part, shape: _Shape, path: str) -> Iterator[str]:
    """The paths, for example `documents[3].text`, of the strings that are not UTF-8."""
    items: Counter[int] = Counter()
    for number, kind, start, stop in _fields(part):
        field = shape.fields.get(number)
        if field is None or kind != _DELIMITED:
            continue
        name = f"{path}{field.name}"
        if field.repeated:
            name = f"{name}[{items[number]}]"
            items[number] += 1
        if field.shape is not None:
            yield from _not_utf8(_Part(part.raw, start, stop), field.shape, f"{name}.")
        elif field.string and not _is_utf8(part.raw[start:stop]):
            yield name


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
