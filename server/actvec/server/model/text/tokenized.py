"""The token ids of one document, and its spans."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Spans = Mapping[str, NDArray[np.int64]]
"""The tokens of each span by name, ascending int64 `[n]`."""


class Source(Enum):
    """The kind of a document's content."""

    TEXT = "text"
    MESSAGES = "messages"
    TOKEN_IDS = "token_ids"  # noqa: S105 - not a password


@dataclass(frozen=True, eq=False)
class TokenizedDocument:
    """The token ids of one document.

    Attributes:
        ids: int64 `[T]`, including BOS if there is one.
        tokens: Tokens of the whole document, BOS included: more than T if it was truncated.
        bos: Whether the first token is BOS.
        spans: The tokens of its spans, as indices into `ids`; -1 for tokens that were cut.
        source: The kind of its content.
    """

    ids: NDArray[np.int64]
    tokens: int
    bos: bool = False
    spans: Spans = field(default_factory=dict)
    source: Source = Source.TEXT

    @property
    def truncated(self) -> bool:
        """Whether the document was cut to the context."""
        return len(self.ids) < self.tokens


def after_cut(spans: Spans, kept: NDArray[np.int64]) -> Spans:
    """Recount spans in the remaining tokens, ascending; tokens that were cut become -1.

    Args:
        spans: Tokens of each span in the whole document.
        kept: The remaining tokens, ascending.
    """
    found = {}
    for name, tokens in spans.items():
        place = np.minimum(np.searchsorted(kept, tokens), len(kept) - 1)
        found[name] = np.sort(np.where(kept[place] == tokens, place, -1))
    return found
