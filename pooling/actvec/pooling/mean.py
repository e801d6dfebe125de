"""The mean of a corpus, one for each distance from the end of a document.

For documents with states `H_d [T_d, D]` and every distance `j` that any of them reaches,
`mean[j]` is the mean of `H_d[T_d - 1 - j]` over the `counts[j]` documents that have it.
"""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from actvec.pooling.modes import pooling_matrix


class MeanAccumulator:
    """Sums by distance from the end, which merge exactly.

    Sums are float64: the result depends neither on the order of the documents nor on how they were
    split, beyond float64 rounding.

    Args:
        d_model: D, the residual width.
        variance: Whether squares are summed too.
    """

    def __init__(self, d_model: int, *, variance: bool = False) -> None:
        self.d_model = d_model
        self._counts = np.zeros(0, dtype=np.int64)
        self._sums = np.zeros((0, d_model))
        self._squares = np.zeros((0, d_model)) if variance else None

    @classmethod
    def from_sums(
        cls,
        counts: NDArray[np.int64],
        sums: NDArray[np.float64],
        squares: NDArray[np.float64] | None = None,
    ) -> Self:
        """An accumulator of given `counts [N]`, `sums [N, D]` and, optionally, `squares [N, D]`.

        Raises:
            ValueError: the shapes do not fit together.
        """
        accumulator = cls(sums.shape[-1], variance=squares is not None)
        accumulator.add_sums(counts, sums, squares)
        return accumulator

    @property
    def counts(self) -> NDArray[np.int64]:
        """Documents at each distance, int64 `[N]`, not increasing."""
        return self._counts

    @property
    def sums(self) -> NDArray[np.float64]:
        """Sums of states at each distance, float64 `[N, D]`."""
        return self._sums

    @property
    def squares(self) -> NDArray[np.float64] | None:
        """Sums of squared states, float64 `[N, D]`, where they are kept."""
        return self._squares

    @property
    def max_tokens(self) -> int:
        """N: tokens of the longest document."""
        return len(self._counts)

    @property
    def documents(self) -> int:
        """Documents that were added."""
        return int(self._counts[0]) if self.max_tokens else 0

    @property
    def tokens(self) -> int:
        """Tokens that were added."""
        return int(self._counts.sum())

    def add(self, states: NDArray[np.floating]) -> None:
        """Add one document's states `[T, D]`, in document order.

        Raises:
            ValueError: the states are not a matrix of D columns, or not finite.
        """
        if not np.isfinite(states).all():
            raise ValueError("the states of a document are not finite; they would spoil the mean")
        backwards = states[::-1].astype(np.float64)
        squares = None if self._squares is None else backwards**2
        self.add_sums(np.ones(len(states), dtype=np.int64), backwards, squares)

    def add_sums(
        self,
        counts: NDArray[np.int64],
        sums: NDArray[np.float64],
        squares: NDArray[np.float64] | None = None,
    ) -> None:
        """Add `counts [N]`, `sums [N, D]` and, where kept, `squares [N, D]` of other documents.

        Raises:
            ValueError: the shapes do not fit, or squares are kept and not given.
        """
        positions = len(counts)
        if sums.shape != (positions, self.d_model):
            raise ValueError(
                f"sums are [{positions}, {self.d_model}] for these counts, not {sums.shape}"
            )
        if self._squares is not None and (squares is None or squares.shape != sums.shape):
            raise ValueError("this accumulator keeps squares, and the other has none of this shape")
        self._grow(positions)
        self._counts[:positions] += counts
        self._sums[:positions] += sums
        if self._squares is not None and squares is not None:
            self._squares[:positions] += squares

    def merge(self, other: "MeanAccumulator") -> None:
        """Add the documents of another accumulator.

        Raises:
            ValueError: the widths differ, or squares are kept here and not there.
        """
        self.add_sums(other.counts, other.sums, other.squares)

    def mean(self) -> NDArray[np.float32]:
        """The mean at each distance from the end, float32 `[N, D]`."""
        return (self._sums / self._counts[:, None]).astype(np.float32)

    def variance(self) -> NDArray[np.float32] | None:
        """The population variance at each distance, float32 `[N, D]`, where squares are kept."""
        if self._squares is None:
            return None
        counts = self._counts[:, None]
        spread = self._squares / counts - (self._sums / counts) ** 2
        # Rounding can leave a hair below zero where all documents agree.
        return np.maximum(spread, 0).astype(np.float32)

    def _grow(self, positions: int) -> None:
        more = positions - self.max_tokens
        if more > 0:
            self._counts = np.pad(self._counts, (0, more))
            self._sums = np.pad(self._sums, ((0, more), (0, 0)))
            if self._squares is not None:
                self._squares = np.pad(self._squares, ((0, more), (0, 0)))


def pooled_mean(mode: str, mean: NDArray[np.floating], tokens: int) -> NDArray[np.float32]:
    """What centring subtracts from a raw vector: `W(T) @ M[:T]`, flattened, float32 `[K * D]`.

    Centring is linear: pooling the centred states and centring the pooled states are the same, so
    `raw - centred` of any document of `tokens` tokens is this, to float32 rounding.

    Args:
        mode: A key of `MODES`.
        mean: The corpus mean `[N, D]`, by distance from the end; float64 saves a conversion.
        tokens: T, the tokens that were pooled; at most N.

    Raises:
        ValueError: the mean has fewer positions than there are tokens, or there is no such mode.
    """
    if tokens > len(mean):
        raise ValueError(f"the mean has {len(mean)} positions, the document {tokens} tokens")
    # The weights are turned round, not the mean, which is so much larger.
    by_distance = pooling_matrix(mode, tokens)[:, ::-1].astype(np.float64)
    pooled = by_distance @ mean[:tokens]
    return np.asarray(pooled.reshape(-1), dtype=np.float32)
