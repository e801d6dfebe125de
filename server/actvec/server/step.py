"""What an engine is given: the documents of one step."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from actvec.pooling import MeanAccumulator


class DeviceSums:
    """Sums of states by distance from the end, on the engine's device, for a corpus mean.

    Only the engine's thread adds; `take` is called when no document that goes here is on its way.

    Args:
        d_model: D, the residual width.
        context: The longest document in tokens.
        device: The engine's.
        variance: Whether squares are summed too.
    """

    def __init__(self, d_model: int, context: int, device: str, *, variance: bool) -> None:
        shape = (context, d_model)
        self._counts = torch.zeros(context, dtype=torch.int64)
        self._sums = torch.zeros(shape, dtype=torch.float64, device=device)
        self._squares = torch.zeros(shape, dtype=torch.float64, device=device) if variance else None

    def add(self, states: torch.Tensor, lengths: list[int]) -> None:
        """Add documents of these lengths, whose states `[T, D]` lie one after the other."""
        backwards = torch.cat([torch.arange(length - 1, -1, -1) for length in lengths])
        self._counts += torch.bincount(backwards, minlength=len(self._counts))
        positions = backwards.to(states.device)
        exact = states.double()
        self._sums.index_add_(0, positions, exact)
        if self._squares is not None:
            self._squares.index_add_(0, positions, exact.square_())

    def take(self) -> MeanAccumulator:
        """The sums on the host, cut to the longest document."""
        used = int((self._counts > 0).sum())
        squares = None if self._squares is None else self._squares[:used].cpu().numpy()
        return MeanAccumulator.from_sums(
            self._counts[:used].numpy(), self._sums[:used].cpu().numpy(), squares
        )


@dataclass(frozen=True, eq=False)
class StepDocument:
    """One document of a step.

    Attributes:
        ids: int64 `[T]`.
        pool_tokens: How many of its last tokens are pooled; None for all.
        sums: Where its states are added for a corpus mean; None for nowhere.
    """

    ids: NDArray[np.int64]
    pool_tokens: int | None = None
    sums: DeviceSums | None = None

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.ids)

    @property
    def pooled(self) -> int:
        """Tokens that are pooled."""
        return self.tokens if self.pool_tokens is None else self.pool_tokens
