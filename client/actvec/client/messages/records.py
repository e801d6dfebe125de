"""Records whose attributes are fields of messages."""

from collections.abc import MutableSequence
from dataclasses import fields
from typing import Any, TypeVar

from google.protobuf.message import Message

Record = TypeVar("Record")


def record_of(kind: type[Record], *messages: Message, **others: Any) -> Record:
    """Make a record of what messages hold.

    Args:
        kind: A dataclass.
        messages: An attribute is the field of its name, of the first message that has one. A
            repeated field becomes a tuple.
        **others: The attributes that are not such fields.
    """
    names = [field.name for field in fields(kind) if field.name not in others]  # type: ignore[arg-type]
    return kind(**{name: _value(name, messages) for name in names}, **others)


def _value(name: str, messages: tuple[Message, ...]) -> Any:
    value = next(getattr(one, name) for one in messages if name in one.DESCRIPTOR.fields_by_name)
    return tuple(value) if isinstance(value, MutableSequence) else value
