"""The mean of a corpus at each distance from the end of a document.

For documents with states `H_d [T_d, D]`, `mean[j]` is the mean of `H_d[T_d - 1 - j]` over the
`counts[j]` documents that have more than `j` tokens.
"""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from actvec.pooling.modes import Pools, pooling_matrix
from actvec.pooling.pool import PoolTokens


class MeanAccumulator:
    """Sums by distance from the end, which merge exactly.

    Sums are float64: beyond float64 rounding, the result depends neither on the order of the
    documents nor on how they were split.

    States are `[T, D]`, or `[L, T, D]` for separate layers; sums, squares, mean and variance then
    have the same leading L.

        >>> accumulator = MeanAccumulator(512)
        >>> for states in (np.ones((3, 512)), np.zeros((2, 512))):
        ...     accumulator.add(states)
        >>> accumulator.mean()[:, 0], accumulator.counts
        (array([0.5, 0.5, 1. ], dtype=float32), array([2, 2, 1]))

    Args:
        d_model: D, the residual width.
        variance: Whether to sum squares too.
        layers: L, the number of separate layers; None for states `[T, D]`.
    """

    def __init__(self, d_model: int, *, variance: bool = False, layers: int | None = None) -> None:
        self.d_model = d_model
        self.layers = layers
        self._counts = np.zeros(0, dtype=np.int64)
        self._sums = np.zeros(self._shape(0))
        self._squares = np.zeros(self._shape(0)) if variance else None

    @classmethod
    def from_sums(
        cls,
        counts: NDArray[np.int64],
        sums: NDArray[np.float64],
        squares: NDArray[np.float64] | None = None,
    ) -> Self:
        """An accumulator with the given `counts [N]`, `sums [N, D]` and optional `squares [N, D]`.

        Sums and squares may be `[L, N, D]`.

        Raises:
            ValueError: the shapes do not match.
        """
        layers = len(sums) if sums.ndim == 3 else None
        accumulator = cls(sums.shape[-1], variance=squares is not None, layers=layers)
        accumulator.add_sums(counts, sums, squares)
        return accumulator

    @property
    def counts(self) -> NDArray[np.int64]:
        """Documents at each distance, int64 `[N]`, not increasing."""
        return self._counts

    @property
    def sums(self) -> NDArray[np.float64]:
        """Sums of states at each distance, float64 `[N, D]` or `[L, N, D]`."""
        return self._sums

    @property
    def squares(self) -> NDArray[np.float64] | None:
        """Sums of squared states, in the shape of `sums`; None without `variance`."""
        return self._squares

    @property
    def max_tokens(self) -> int:
        """N, the number of tokens of the longest document."""
        return len(self._counts)

    @property
    def documents(self) -> int:
        """Number of documents added."""
        return int(self._counts[0]) if self.max_tokens else 0

    @property
    def tokens(self) -> int:
        """Number of tokens added."""
        return int(self._counts.sum())

    def add(self, states: NDArray[np.floating]) -> None:
        """Add one document's states `[T, D]` or `[L, T, D]`, in document order.

        Raises:
            ValueError: the states have another shape, or are not finite.
        """
        if not np.isfinite(states).all():
            raise ValueError("the states of a document are not finite; they would spoil the mean")
        backwards = states[..., ::-1, :].astype(np.float64)
        squares = None if self._squares is None else backwards**2
        self.add_sums(np.ones(states.shape[-2], dtype=np.int64), backwards, squares)

    def add_sums(
        self,
        counts: NDArray[np.int64],
        sums: NDArray[np.float64],
        squares: NDArray[np.float64] | None = None,
    ) -> None:
        """Add `counts [N]`, `sums [N, D]` and, with `variance`, `squares [N, D]`.

        For separate layers, sums and squares are `[L, N, D]`.

        Raises:
            ValueError: the shapes do not match, or the squares are missing.
        """
        positions = len(counts)
        if sums.shape != self._shape(positions):
            raise ValueError(
                f"sums are {list(self._shape(positions))} for these counts, not {sums.shape}"
            )
        if self._squares is not None and (squares is None or squares.shape != sums.shape):
            raise ValueError("this accumulator keeps squares, and the other has none of this shape")
        self._grow(positions)
        self._counts[:positions] += counts
        self._sums[..., :positions, :] += sums
        if self._squares is not None and squares is not None:
            self._squares[..., :positions, :] += squares

    def merge(self, other: "MeanAccumulator") -> None:
        """Add the documents of another accumulator.

        Raises:
            ValueError: widths or layers differ, or only this accumulator has squares.
        """
        self.add_sums(other.counts, other.sums, other.squares)

    def mean(self) -> NDArray[np.float32]:
        """The mean at each distance from the end, float32 `[N, D]` or `[L, N, D]`."""
        return (self._sums / self._counts[:, None]).astype(np.float32)

    def variance(self) -> NDArray[np.float32] | None:
        """The population variance, in the shape of `mean()`; None without `variance`."""
        if self._squares is None:
            return None
        counts = self._counts[:, None]
        spread = self._squares / counts - (self._sums / counts) ** 2
        # Rounding can leave a value just below zero if all documents agree.
        return np.maximum(spread, 0).astype(np.float32)

    def _shape(self, positions: int) -> tuple[int, ...]:
        shape = (positions, self.d_model)
        return shape if self.layers is None else (self.layers, *shape)

    def _grow(self, positions: int) -> None:
        more = positions - self.max_tokens
        if more <= 0:
            return
        self._counts = np.pad(self._counts, (0, more))
        padding = [(0, 0)] * (self._sums.ndim - 2) + [(0, more), (0, 0)]
        self._sums = np.pad(self._sums, padding)
        if self._squares is not None:
            self._squares = np.pad(self._squares, padding)


def pooled_mean(
    pools: Pools, mean: NDArray[np.floating], tokens: int | PoolTokens
) -> NDArray[np.float32]:
    """The vector that centering subtracts from a raw one: `W(T) @ M[:T]`, flattened, float32.

    Centering is linear: to pool centered states is to center pooled states. So `raw - centered` of
    any document of `tokens` tokens equals this vector, to float32 rounding.

        >>> pooled_mean(["mean", "last"], np.ones((8, 512)), tokens=5).shape
        (1024,)

    Args:
        pools: The name of a preset, or a list of pools.
        mean: The corpus mean by distance from the end: `[N, D]`, which gives `[K * D]`, or `[L, N,
            D]` for separate layers, which gives `[L * K * D]`. float64 saves a conversion.
        tokens: T, the number of pooled tokens, at most N; a `PoolTokens` for pools that depend on
            spans, BOS or dropped tokens.

    Raises:
        ValueError: the mean has fewer positions than the document has tokens, or a preset or pool
            is unknown.
        DocumentError: the document does not fit a pool.
    """
    known = PoolTokens(tokens) if isinstance(tokens, int) else tokens
    used, positions = known.used, mean.shape[-2]
    if used > positions:
        raise ValueError(f"the mean has {positions} positions, the document {used} tokens")
    # Reverse the weights, not the mean, which is much larger.
    by_distance = pooling_matrix(pools, known)[:, ::-1].astype(np.float64)
    pooled = by_distance @ mean[..., :used, :]
    return np.asarray(pooled.reshape(-1), dtype=np.float32)
