"""A pool: one row of the pooling matrix `W [K, T]`.

Its weights depend on the number of tokens, on spans and on a leading BOS, never on the states. They
are computed in float64, sum to 1, and are rounded to float32 once, at the end.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_SPANS: Mapping[str, NDArray[np.int64]] = MappingProxyType({})

# Tolerance on the sum of a pool's weights.
_SUM = 1e-9


@dataclass(frozen=True, eq=False)
class PoolTokens:
    """The tokens of a document, as a pool sees them.

    Attributes:
        used: T, how many of the document's last tokens are pooled.
        dropped: How many tokens come before those.
        bos: Whether the document's first token is BOS.
        spans: The tokens of each span by name, ascending int64 `[n]`, counted from the document's
            first token.
    """

    used: int
    dropped: int = 0
    bos: bool = False
    spans: Mapping[str, NDArray[np.int64]] = field(default_factory=lambda: NO_SPANS)

    def __post_init__(self) -> None:
        if self.used < 1:
            raise ValueError(f"a document has at least one token, not {self.used}")

    def distances(self) -> NDArray[np.float64]:
        """Distances `[T]` from the end, in document order: `T - 1, ..., 1, 0`."""
        return np.arange(self.used - 1, -1, -1, dtype=np.float64)


Weights = Callable[[PoolTokens], NDArray[np.float64]]
"""The extension point: maps a document's tokens to float64 weights `[T]` that sum to 1."""


@dataclass(frozen=True)
class Pool:
    """One row of `W`. Pools of the same name are equal.

        >>> parse_pool("last").weights(3)
        array([0., 0., 1.])

    Attributes:
        name: The canonical written form, for example `exp_933` or `span:answer`.
        weigh: Computes the weights.
        depth: Half-life as a fraction of the document; 0 for pools without one.
        spans: Names of the spans it needs. Without any, the weights depend only on the number of
            tokens and on BOS.
    """

    name: str
    weigh: Weights = field(compare=False, repr=False)
    depth: float = field(default=0.0, compare=False)
    spans: tuple[str, ...] = field(default=(), compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        from actvec.pooling.written import parse_pool  # noqa: PLC0415 - it needs this module

        return parse_pool, (self.name,)

    def weights(self, tokens: int | PoolTokens) -> NDArray[np.float64]:
        """Weights `[T]` in document order, float64, summing to 1.

        Args:
            tokens: The document's tokens, or only their number.

        Raises:
            ValueError: there is less than one token, or the weights do not sum to 1.
            DocumentError: the document does not fit the pool.
        """
        if isinstance(tokens, int):
            tokens = PoolTokens(tokens)
        row = np.asarray(self.weigh(tokens), dtype=np.float64)
        if row.shape != (tokens.used,) or not abs(row.sum() - 1) <= _SUM:
            raise ValueError(
                f"pool {self.name} gives weights {row.shape} that sum to {row.sum()} for "
                f"{tokens.used} tokens"
            )
        return row

    def row(self, tokens: PoolTokens) -> NDArray[np.float32]:
        """The weights as float32, read-only; cached for pools without spans."""
        if self.spans:
            return self.weights(tokens).astype(np.float32)
        return _kept_row(self, tokens.used, tokens.dropped, tokens.bos)


@lru_cache(maxsize=4096)
def _kept_row(pool: Pool, used: int, dropped: int, bos: bool) -> NDArray[np.float32]:
    row = pool.weights(PoolTokens(used, dropped, bos)).astype(np.float32)
    row.flags.writeable = False
    return row
