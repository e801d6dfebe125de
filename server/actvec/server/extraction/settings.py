"""Checked settings: how the documents of a call become vectors."""

from dataclasses import dataclass, field

from actvec.pooling import Pool
from actvec.server.model.stamp import Truncation
from actvec.server.model.target import Target
from actvec.server.model.text.chat import ChatSettings


@dataclass(frozen=True)
class Settings:
    """How documents become vectors.

    Attributes:
        pools: The pools, in the order of the vector.
        target: The layers and hook whose states are pooled.
        truncation: How to treat documents beyond the context.
        corpus_mean: Id, name or `latest`; empty for raw vectors.
        prepend_bos: Whether BOS comes first in a text; never without a BOS in the tokenizer.
        chat: How to render chats.
    """

    pools: tuple[Pool, ...]
    target: Target
    truncation: Truncation
    corpus_mean: str
    prepend_bos: bool
    chat: ChatSettings = field(default_factory=ChatSettings)

    @property
    def needs_spans(self) -> bool:
        """Whether a pool needs a span."""
        return any(pool.spans for pool in self.pools)

    def vector_bytes(self, width: int) -> int:
        """Bytes of a float32 vector for states of `width` numbers."""
        return 4 * self.target.rows * len(self.pools) * width
