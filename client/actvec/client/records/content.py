"""Content of documents other than plain text: chats, token ids and spans."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from actvec.pooling import SPAN_NAME

Source = Literal["text", "messages", "token_ids"]
"""The kind of content: the name of an attribute of `Document` and of a record's field."""

# The contract's numbers are uint32.
_LARGEST = (1 << 32) - 1


@dataclass(frozen=True)
class Message:
    """One message of a chat.

    Attributes:
        role: `system`, `user`, `assistant`, or another role of the model's chat template.
        content: The message's text.
    """

    role: str
    content: str


@dataclass(frozen=True, order=True)
class Span:
    """A part of a document, for the pool `span:NAME`. Spans of the same name add up to one.

    Example:
        >>> Document("a", "Some text.", spans=[Span("noun", 5, 9)])

    Attributes:
        name: 1 to 64 letters, digits, `_`, `.` and `-`.
        start: Index of its first character (of a text) or token (of ids), from 0.
        end: Index after its last.
    """

    name: str
    start: int
    end: int


MessageLike = Message | Mapping[str, object] | Sequence[str]
SpanLike = Span | Mapping[str, object] | Sequence[object]


def as_messages(given: Iterable[MessageLike]) -> tuple[Message, ...]:
    """Convert the messages of a chat: `{"role": ..., "content": ...}` or `(role, content)` each.

    Raises:
        TypeError: an item has another form.
        ValueError: there is no message, or one has more than a role and a content.
    """
    messages = tuple(_message(one) for one in _items(given, "messages"))
    if not messages:
        raise ValueError("messages are empty: a chat has one message or more")
    return messages


def as_spans(given: Iterable[SpanLike]) -> tuple[Span, ...]:
    """Convert spans: `(name, start, end)` or `{"name": ..., "start": ..., "end": ...}` each.

    Raises:
        TypeError: an item has another form.
        ValueError: a name is malformed, or a span is empty or reversed.
    """
    return tuple(_span(one) for one in _items(given, "spans"))


def as_ids(given: Iterable[int]) -> tuple[int, ...]:
    """Convert token ids.

    Raises:
        TypeError: an id is not a whole number.
        ValueError: there are none, or one is negative or too large for any vocabulary.
    """
    ids = tuple(_items(given, "token_ids"))
    if not ids:
        raise ValueError("token_ids are empty: a document has one token or more")
    return tuple(_whole(value, "a token id") for value in ids)


def _items(given: object, name: str) -> Iterable[object]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"{name} are a list, not {type(given).__name__}")
    return given


def _message(given: object) -> Message:
    if isinstance(given, Mapping):
        role, content = given.get("role"), given.get("content")
        # Refuse a tool call: without it, this would be another chat.
        others = [str(key) for key, value in given.items() if value is not None]
        if others := [name for name in others if name not in {"role", "content"}]:
            raise ValueError(f"a message has a role and a content, and no {', '.join(others)}")
    elif isinstance(given, Message):
        role, content = given.role, given.content
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes) and len(given) == 2:
        role, content = given
    else:
        role = content = None
    if not isinstance(role, str) or not isinstance(content, str):
        raise TypeError(f"a message is a role and a content, two strings, not {given!r:.80}")
    return Message(role, content)


def _span(given: object) -> Span:
    values: Sequence[object]
    if isinstance(given, Mapping):
        values = [given.get(name) for name in ("name", "start", "end")]
    elif isinstance(given, Span):
        values = (given.name, given.start, given.end)
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        values = given
    else:
        values = ()
    if len(values) != 3 or not isinstance(values[0], str):
        raise TypeError(f"a span is a name, a start and an end, not {given!r:.80}")
    name, start, end = values[0], *(_whole(value, "the end of a span") for value in values[1:])
    if not SPAN_NAME.fullmatch(name):
        raise ValueError(
            f"a span's name is 1 to 64 letters, digits, '_', '.' and '-', not {name!r:.80}"
        )
    if end <= start:
        raise ValueError(f"span {name!r} ends at {end}, and so must begin before, not at {start}")
    return Span(name, start, end)


def _whole(value: object, what: str) -> int:
    # Accepts NumPy's integers, but neither True nor 1.0.
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what} is a whole number, not {value!r:.80}")
    try:
        number = int(value.__index__())
    except TypeError:
        # An array or a tensor of several numbers: a row of a batch.
        raise TypeError(f"{what} is a whole number, not {value!r:.80}; is it a batch?") from None
    if not 0 <= number <= _LARGEST:
        raise ValueError(f"{what} is from 0 to {_LARGEST}, not {number}")
    return number
