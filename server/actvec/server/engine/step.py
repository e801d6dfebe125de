"""The documents of one step, as an engine receives them."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from actvec.pooling import MeanAccumulator, Pools, PoolTokens, as_pools
from actvec.server.engine.weighing import Weights, weights_of
from actvec.server.errors import SumsLostError
from actvec.server.model.card import ModelCard
from actvec.server.model.target import Target


class DeviceSums:
    """Sums of states by distance from the end, on the engine's device, for a corpus mean.

    They grow to the longest document. Only the engine's thread adds; call `take` while no document
    of these sums is in flight.

    Args:
        d_model: D, the residual width.
        device: The engine's device.
        variance: Whether to sum squares too.
        longest: Tokens of the longest possible document.
        layers: L, the number of layers to sum separately; None for their mean.
    """

    def __init__(
        self, d_model: int, device: str, *, variance: bool, longest: int, layers: int | None = None
    ) -> None:
        self._longest = longest
        self._separate = layers is not None
        self._lengths: Counter[int] = Counter()
        # [L, rows, D]. The last row is distance 0: a document is added in its own order, aligned at
        # the end.
        self._sums = torch.zeros((layers or 1, 0, d_model), dtype=torch.float64, device=device)
        self._squares = self._sums.clone() if variance else None

    def add(self, *layers: torch.Tensor) -> None:
        """Add a document whole, or not at all if memory runs out.

        Args:
            *layers: The states `[T, D]` of each layer; for averaged layers, their mean.

        Raises:
            RuntimeError: there is no memory for it (from torch).
            MemoryError: there is none (from Python).
        """
        tokens = len(layers[0])
        # Allocate everything first: sums of different dtypes would need memory on a CPU.
        self._sums = self._with_room(self._sums, tokens)
        if self._squares is not None:
            self._squares = self._with_room(self._squares, tokens)
        added = torch.empty_like(layers[0], dtype=torch.float64)
        for number, states in enumerate(layers):
            added.copy_(states)
            self._sums[number, -tokens:] += added
            if self._squares is not None:
                self._squares[number, -tokens:] += added.square_()
        self._lengths[tokens] += 1

    def take(self) -> MeanAccumulator:
        """Copy the sums to the host."""
        positions = max(self._lengths, default=0)
        counts = np.zeros(positions, dtype=np.int64)
        for tokens, documents in self._lengths.items():
            counts[:tokens] += documents
        squares = None if self._squares is None else self._by_distance(self._squares, positions)
        return MeanAccumulator.from_sums(counts, self._by_distance(self._sums, positions), squares)

    def _with_room(self, sums: torch.Tensor, tokens: int) -> torch.Tensor:
        """Return the same sums with at least `tokens` rows; new rows come first."""
        layers, before, width = sums.shape
        if tokens <= before:
            return sums
        rows = max(tokens, min(2 * before, self._longest))
        grown = sums.new_zeros((layers, rows, width))
        grown[:, rows - before :] = sums
        return grown

    def _by_distance(self, sums: torch.Tensor, positions: int) -> NDArray[np.float64]:
        rows: NDArray[np.float64] = sums[:, sums.shape[1] - positions :].cpu().numpy()[:, ::-1]
        return rows if self._separate else rows[0]


class EngineSums:
    """Sums of a job that several engines compute; each engine adds to its own.

    Args:
        make: Makes sums of no documents on a device.
    """

    def __init__(self, make: Callable[[str], DeviceSums]) -> None:
        self._make = make
        # An engine is its thread here: two engines may share a device.
        self._by_thread: dict[int, DeviceSums] = {}

    def add(self, *layers: torch.Tensor) -> None:
        """Add a document, on the thread of the engine that has its states.

        Args:
            *layers: As of `DeviceSums.add`.

        Raises:
            RuntimeError: as for it.
            MemoryError: as for it.
        """
        thread = threading.get_ident()
        if thread not in self._by_thread:
            self._by_thread[thread] = self._make(str(layers[0].device))
        self._by_thread[thread].add(*layers)

    def take(self, empty: MeanAccumulator) -> MeanAccumulator:
        """The sums of all engines on the host; `empty` if no document was added.

        Raises:
            SumsLostError: a device is lost, and what it had summed.
        """
        total: MeanAccumulator | None = None
        try:
            for sums in self._by_thread.values():
                taken = sums.take()
                if total is None:
                    total = taken
                else:
                    total.merge(taken)
        except torch.AcceleratorError as error:
            raise SumsLostError from error
        return empty if total is None else total


@dataclass(frozen=True, eq=False)
class StepDocument:
    """One document of a step.

    Attributes:
        ids: int64 `[T]`.
        weights: Its pools.
        target: The layers and hook to pool; None for the engine's default target.
        sums: Sums to add its states to, for a corpus mean; None for no sums.
        made: When it was created and began to wait for a step, on the monotonic clock.
    """

    ids: NDArray[np.int64]
    weights: Weights
    target: Target | None = None
    sums: DeviceSums | EngineSums | None = None
    made: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, ids: NDArray[np.int64], pools: Pools, **others: Any) -> Self:
        """Create a document pooled over all its tokens, by pools that need only their number.

        Args:
            ids: See the class.
            pools: The name of a preset, or a list of pools.
            **others: See the class.
        """
        return cls(ids, weights_of(as_pools(pools), PoolTokens(len(ids))), **others)

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.ids)

    def held_bytes(self, card: ModelCard) -> int:
        """Bytes that a step holds for it until its end: its pools, and states to sum."""
        target = self.target or card.target
        rows = target.rows * (1 + self.weights.pools)
        if self.sums is not None:
            rows += len(target.layers) * self.tokens
        return 4 * card.d_model * rows
