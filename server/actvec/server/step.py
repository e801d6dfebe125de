"""What an engine is given: the documents of one step."""

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from actvec.pooling import MeanAccumulator


class DeviceSums:
    """Sums of states by distance from the end, on the engine's device, for a corpus mean.

    They grow to the longest document. Only the engine's thread adds; `take` is called when no
    document that goes here is on its way.

    Args:
        d_model: D, the residual width.
        device: The engine's.
        variance: Whether squares are summed too.
        longest: Tokens that a document may have.
    """

    def __init__(self, d_model: int, device: str, *, variance: bool, longest: int) -> None:
        self._longest = longest
        self._lengths: Counter[int] = Counter()
        # The last row is distance 0: a document is added as it lies, with its end at the end.
        self._sums = torch.zeros((0, d_model), dtype=torch.float64, device=device)
        self._squares = self._sums.clone() if variance else None

    def add(self, states: torch.Tensor) -> None:
        """Add the states `[T, D]` of a document, float32; whole, or not at all where memory ends.

        Raises:
            RuntimeError: there is no memory for it, as torch says.
            MemoryError: likewise, as Python says.
        """
        tokens = len(states)
        # What takes memory comes first.
        self._sums = self._with_room(self._sums, tokens)
        squared = None
        if self._squares is not None:
            self._squares = self._with_room(self._squares, tokens)
            squared = states.double().square_()
        # This may take some too: on a CPU the states are converted before they are added.
        self._sums[-tokens:] += states
        if self._squares is not None and squared is not None:
            self._squares[-tokens:] += squared
        self._lengths[tokens] += 1

    def take(self) -> MeanAccumulator:
        """The sums on the host."""
        positions = max(self._lengths, default=0)
        counts = np.zeros(positions, dtype=np.int64)
        for tokens, documents in self._lengths.items():
            counts[:tokens] += documents
        squares = None if self._squares is None else _by_distance(self._squares, positions)
        return MeanAccumulator.from_sums(counts, _by_distance(self._sums, positions), squares)

    def _with_room(self, sums: torch.Tensor, tokens: int) -> torch.Tensor:
        """The same sums with at least `tokens` rows; the rows that are new stand first."""
        if tokens <= len(sums):
            return sums
        rows = max(tokens, min(2 * len(sums), self._longest))
        grown = sums.new_zeros((rows, sums.shape[1]))
        grown[len(grown) - len(sums) :] = sums
        return grown


def _by_distance(sums: torch.Tensor, positions: int) -> NDArray[np.float64]:
    rows: NDArray[np.float64] = sums[len(sums) - positions :].cpu().numpy()
    return rows[::-1]


@dataclass(frozen=True, eq=False)
class StepDocument:
    """One document of a step.

    Attributes:
        ids: int64 `[T]`.
        pool_tokens: How many of its last tokens are pooled; None for all.
        sums: Where its states are added for a corpus mean; None for nowhere.
        made: When it was made, on the monotonic clock, and began to wait for a step.
    """

    ids: NDArray[np.int64]
    pool_tokens: int | None = None
    sums: DeviceSums | None = None
    made: float = field(default_factory=time.monotonic)

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.ids)

    @property
    def pooled(self) -> int:
        """Tokens that are pooled."""
        return self.tokens if self.pool_tokens is None else self.pool_tokens
