"""Contents of documents: a text, a chat, or token ids, with spans."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actvec.pooling import SPAN_NAME, ids_digest, messages_digest, text_digest
from actvec.server.errors import InputError
from actvec.server.model.text.chat import Message

CHAT_SPANS = ("user", "assistant", "system", "response", "prompt")
"""The spans that a chat has by role; spans of a text or of token ids must have other names."""

# A rough measure of what tokenizing costs.
_CHARACTERS_PER_ID = 4


class Span(NamedTuple):
    """A named part of a document: code points of a text, or tokens.

    Attributes:
        name: Its name.
        start: Index of its first code point or token.
        end: Index after its last.
    """

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class TextContent:
    """A text, with spans in code points."""

    text: str
    spans: tuple[Span, ...] = ()

    def characters(self) -> int:
        """Its size in characters."""
        return len(self.text)

    def utf8_bytes(self) -> int:
        """Bytes of its UTF-8."""
        return len(self.text.encode())

    def digest(self) -> bytes:
        """Its 32-byte digest, as the contract defines it."""
        return text_digest(self.text, self.spans)

    def check(self) -> None:
        """Check that the spans lie within the text.

        Raises:
            InputError: one does not.
        """
        check_spans(self.spans, len(self.text), "the text has", "characters")


@dataclass(frozen=True)
class ChatContent:
    """A chat."""

    messages: tuple[Message, ...]

    def characters(self) -> int:
        """Its size in characters."""
        return sum(len(role) + len(content) for role, content in self.messages)

    def utf8_bytes(self) -> int:
        """Bytes of its UTF-8."""
        return sum(len(part.encode()) for message in self.messages for part in message)

    def digest(self) -> bytes:
        """Its 32-byte digest, as the contract defines it."""
        return messages_digest(self.messages)

    def check(self) -> None:
        """Check that there are messages.

        Raises:
            InputError: there are none.
        """
        if not self.messages:
            raise InputError("messages", "are empty; a chat needs at least one message")


@dataclass(frozen=True, eq=False)
class IdsContent:
    """Token ids, int64 `[T]`, with spans in tokens."""

    ids: NDArray[np.int64]
    spans: tuple[Span, ...] = ()

    def characters(self) -> int:
        """Its size in characters, as a text with about as many tokens."""
        return _CHARACTERS_PER_ID * len(self.ids)

    def utf8_bytes(self) -> int:
        """0: the limit applies to texts."""
        return 0

    def digest(self) -> bytes:
        """Its 32-byte digest, as the contract defines it."""
        return ids_digest(self.ids.tolist(), self.spans)

    def check(self) -> None:
        """Check that there are ids, and that the spans lie within them.

        Raises:
            InputError: there are none, or a span is outside.
        """
        if not len(self.ids):
            raise InputError("token_ids", "are empty; a document needs at least one")
        check_spans(self.spans, len(self.ids), "there are", "tokens")


Content = TextContent | ChatContent | IdsContent


def check_spans(spans: Sequence[Span], size: int, has: str, unit: str) -> None:
    """Check that spans have valid names and lie within a document.

    Raises:
        InputError: one does not; names it.
    """
    for number, (name, start, end) in enumerate(spans):
        field = f"spans[{number}]"
        if not SPAN_NAME.fullmatch(name):
            raise InputError(
                f"{field}.name",
                f"is {name[:80]!r}; use 1 to 64 letters, digits, '_', '.' and '-'",
            )
        if name in CHAT_SPANS:
            raise InputError(
                f"{field}.name",
                f"is {name!r}, which only chats have, by role; choose another, such as answer",
            )
        if start >= end:
            how = "is empty" if start == end else "ends before it begins"
            raise InputError(field, f"{how}: {name!r} is from {start} to {end}, exclusive")
        if end > size:
            raise InputError(field, f"ends at {end}: {name!r} is too long, {has} {size} {unit}")
