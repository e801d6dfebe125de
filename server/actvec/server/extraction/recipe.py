"""How the documents of one call become vectors: settings, and the mean to center by."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actvec.pooling import DocumentError, PoolTokens
from actvec.server.engine.pools import Pools
from actvec.server.engine.step import StepDocument
from actvec.server.engine.weighing import weights_of
from actvec.server.errors import InputError
from actvec.server.extraction.settings import Settings
from actvec.server.means.centering import Centering
from actvec.server.model.text.tokenized import Source, TokenizedDocument


@dataclass(frozen=True)
class PooledDocument:
    """The vector of one document, and facts about the document.

    Attributes:
        values: The vector, float32 `[L, K, D]`, raw or centered.
        tokens: Tokens of the whole document, BOS included.
        tokens_used: Number of pooled tokens.
        truncated: Whether the document was cut to the context.
        smallest_count: Documents behind the mean's rarest position used; 0 for a raw vector.
        bos: Whether the first token is BOS.
        source: Kind of the document's content.
    """

    values: NDArray[np.float32]
    tokens: int
    tokens_used: int
    truncated: bool
    smallest_count: int
    bos: bool
    source: Source


@dataclass(frozen=True)
class Recipe:
    """The one place where pools become a vector, raw or centered."""

    settings: Settings
    centering: Centering | None

    def step_document(self, document: TokenizedDocument) -> StepDocument:
        """Describe a document for the engine.

        Raises:
            InputError: the document does not fit a pool.
        """
        try:
            weights = weights_of(self.settings.pools, self._pool_tokens(document))
        except DocumentError as error:
            raise InputError("pools", str(error)) from error
        return StepDocument(document.ids, weights, self.settings.target)

    def vector(self, document: TokenizedDocument, pools: Pools) -> PooledDocument:
        """Return the vector of a document from its pools `[L, K, D]`."""
        tokens = self._pool_tokens(document)
        if self.centering is not None:
            pools = pools - self.centering.pooled(self.settings.pools, tokens)
        return PooledDocument(
            values=pools,
            tokens=document.tokens,
            tokens_used=tokens.used,
            truncated=document.truncated,
            smallest_count=self.centering.smallest_count(tokens.used) if self.centering else 0,
            bos=document.bos,
            source=document.source,
        )

    def _pool_tokens(self, document: TokenizedDocument) -> PoolTokens:
        """Describe a document's tokens; of one longer than the mean, only the last tokens."""
        tokens = len(document.ids)
        used = tokens if self.centering is None else min(tokens, self.centering.max_tokens)
        return PoolTokens(used, tokens - used, document.bos, document.spans)
