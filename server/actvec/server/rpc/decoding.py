"""Requests from bytes: measured before they are parsed, and explained when they are broken.

protobuf builds a whole message in one call that nothing interrupts, and an empty document, two
bytes on the wire, takes a hundred in memory: 16 MiB of them would stop the event loop for half a
second and take half a gigabyte. A large message is therefore measured first, by a walk over its
bytes that builds nothing and stops at a limit. Explaining a broken message is another such walk, so
that it cannot cost more than the message would have.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from concurrent.futures import Executor
from typing import TypeVar

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from actvec.server.budget import purse
from actvec.server.errors import MessageTooLargeError, RequestError
from actvec.server.rpc.wire import DELIMITED, MalformedError, Part, Shape, fields_of, not_utf8

# Bytes of a message that is parsed as it is, and of one that is measured on the event loop: a few
# milliseconds at the worst.
_TINY, _SMALL = 1 << 12, 1 << 16

# Fields of a message for each document that it may hold: more than a document has.
_FIELDS_PER_DOCUMENT = 16

# Items for each document of a list that documents have, such as their spans, on average.
_ITEMS_PER_DOCUMENT = 4

# Bytes of memory for a field on the wire, whatever it holds: an empty message of ours and its place
# in a list, which has grown by doubling.
_FIELD_BYTES = 128

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
        self._shape = Shape.of(descriptor)
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
            self._count_fields(count, Part(raw, 0, len(raw)), self._shape, "")
        except MalformedError:
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
        """Explains why bytes are not a message."""
        try:
            path = next(not_utf8(Part(raw, 0, len(raw)), self._shape, ""), None)
        except MalformedError:
            path = None
        if path is None:
            return self._no_message()
        return RequestError(path, "is not UTF-8; texts and names are sent as UTF-8")

    def _no_message(self) -> RequestError:
        return RequestError("request", f"is not a {self._name} message")

    def _count_fields(
        self, count: "_Count", part: Part, shape: Shape, path: str, *, listed: bool = False
    ) -> None:
        """Count the fields of a message and of those in it, and refuse too many.

        Args:
            count: Counts them.
            part: The message.
            shape: Its type.
            path: Of the message, with a dot at its end.
            listed: Whether the message is in an item of a list.
        """
        for number, kind, start, stop in fields_of(part):
            count.fields += 1
            if count.fields > self._most_fields:
                raise MessageTooLargeError(
                    "request", f"has more than {self._most_fields} fields; send fewer at a time"
                )
            field = shape.fields.get(number)
            if field is None or kind != DELIMITED:
                continue
            if field.repeated:
                name = f"{path}{field.name}"
                count.items[name] += 1
                most = self._most_items * (_ITEMS_PER_DOCUMENT if listed else 1)
                if count.items[name] > most:
                    raise MessageTooLargeError(
                        name,
                        f"are more than {most}, the limit of one message; send the rest in another",
                    )
            if field.shape is not None:
                inner = Part(part.raw, start, stop)
                inside = f"{path}{field.name}."
                self._count_fields(
                    count, inner, field.shape, inside, listed=listed or field.repeated
                )


class _Count:
    """Counts of a walk over a message.

    Attributes:
        fields: Fields of any kind.
        items: Items of each list, by its path: protobuf joins lists that come in pieces.
    """

    def __init__(self) -> None:
        self.fields = 0
        self.items: Counter[str] = Counter()


def _raw_bytes(raw: bytes) -> int:
    """Bytes of memory that a message takes as it came and, but for its fields, parsed."""
    return 2 * len(raw)
