"""Content of documents other than plain text: chats, token ids and spans."""

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Literal

from actvec.pooling import SPAN_NAME

Source = Literal["text", "messages", "token_ids"]
"""The kind of content: the name of an attribute of `Document` and of a record's field."""

# The contract's numbers are uint32.
_LARGEST = (1 << 32) - 1

# Fields of a message that chat templates read beside its role and content: without them, this would
# be another chat. Other fields are a data set's own, such as a language or a time, and are ignored.
_READ_BY_TEMPLATES = frozenset(
    {
        *("tool", "tools", "tool_calls", "tool_call_id", "tool_name", "tool_plan"),
        *("tool_responses", "function_call", "name", "recipient", "channel", "metadata"),
        *("reasoning", "reasoning_content", "thinking", "prefix", "partial"),
        *("documents", "citations", "images", "videos", "audio", "audios"),
    }
)

# Roles of ShareGPT's form, whose messages are `{"from": ..., "value": ...}`.
_ROLES_BY_SENDER = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
}


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

    Examples:
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

    A content may also be a list of one part, `[{"type": "text", "text": ...}]`. ShareGPT's form,
    `{"from": "human", "value": ...}`, stands for the role `user`; `gpt` for `assistant`.

    Raises:
        TypeError: an item has another form.
        ValueError: there is no message; one has a field, such as `tool_calls`, that chat templates
            read beside the role and the content; or its `from` is unknown, or beside a role.
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
        role, content = given.get("role"), _text(given.get("content"))
        if role is None and content is None and given.get("from") is not None:
            role, content = _role_of(given["from"]), given.get("value")
        elif given.get("value") is not None and given.get("from") is not None:
            raise ValueError("a message has a role and a content, or from and value, not both")
        others = sorted(_READ_BY_TEMPLATES.intersection(given))
        if others := [name for name in others if not _is_empty(given[name])]:
            raise ValueError(
                f"a message has a role and a content, and no {', '.join(others)}; chat templates"
                " read this too, so the chat would be another one without it"
            )
    elif isinstance(given, Message):
        role, content = given.role, given.content
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes) and len(given) == 2:
        role, content = given
    else:
        role = content = None
    if not isinstance(role, str) or not isinstance(content, str):
        raise TypeError(f"a message is a role and a content, two strings, not {given!r:.80}")
    return Message(role, content)


def _role_of(sender: object) -> str:
    if not isinstance(sender, str) or sender not in _ROLES_BY_SENDER:
        raise ValueError(
            f"a message is from {', '.join(_ROLES_BY_SENDER)}, not from {sender!r:.80}; write the"
            ' role that the model\'s template has for it: {"role": ..., "content": ...}'
        )
    return _ROLES_BY_SENDER[sender]


def _text(content: object) -> object:
    """The text of a content that is a list of one part of text, as many APIs take it."""
    if isinstance(content, Sequence) and not isinstance(content, str | bytes) and len(content) == 1:
        (part,) = content
        if isinstance(part, Mapping) and part.get("type") == "text":
            return part.get("text")
    return content


def _is_empty(value: object) -> bool:
    return not len(value) if isinstance(value, Sized) else not value


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
