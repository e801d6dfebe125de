"""The bytes of a message as protobuf's wire format has them, walked without building anything."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_VARINT, _FIXED64, DELIMITED, _GROUP, _END_GROUP, _FIXED32 = range(6)
_LONGEST_VARINT = 10

_STRING = FieldDescriptor.TYPE_STRING


@dataclass(frozen=True, eq=False)
class Shape:
    """A type of message: the fields of it that have bytes of their own, by their number."""

    fields: "dict[int, Field]"

    @classmethod
    def of(cls, descriptor: Descriptor) -> "Shape":
        """The shape of a type that does not hold itself; ours do not."""
        return cls(
            {
                field.number: Field(
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


class Field(NamedTuple):
    """A field: a message (which has a shape), a string, or bytes."""

    name: str
    repeated: bool
    string: bool
    shape: Shape | None


class Part(NamedTuple):
    """Bytes from `begin` to `end` of a message: all of it, or a message in it."""

    raw: bytes
    begin: int
    end: int


class MalformedError(Exception):
    """Bytes are not fields."""


def fields_of(part: Part) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message: number, kind, and the start and end of their content.

    A group is skipped with its content; our contract has none.
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
        if kind == DELIMITED:
            if at >= end:
                raise MalformedError
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
            raise MalformedError
        if at > end:
            raise MalformedError
        # The fields of a group still count as fields, of a number that no message has.
        yield (0 if groups else number), kind, start, at
    if groups:
        raise MalformedError


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A number and the position after it."""
    value = 0
    for index, byte in enumerate(raw[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise MalformedError


def not_utf8(part: Part, shape: Shape, path: str) -> Iterator[str]:
    """The paths, for example `documents[3].text`, of the strings that are not UTF-8."""
    items: Counter[int] = Counter()
    for number, kind, start, stop in fields_of(part):
        field = shape.fields.get(number)
        if field is None or kind != DELIMITED:
            continue
        name = f"{path}{field.name}"
        if field.repeated:
            name = f"{name}[{items[number]}]"
            items[number] += 1
        if field.shape is not None:
            yield from not_utf8(Part(part.raw, start, stop), field.shape, f"{name}.")
        elif field.string and not _is_utf8(part.raw[start:stop]):
            yield name


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
