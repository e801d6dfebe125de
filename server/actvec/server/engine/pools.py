"""Pools the states of a step, layer by layer as they are captured.

All documents of a step with the same target are pooled together: their tokens are gathered into
slots of powers of two, and a batch of slots of one size is one product.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from actvec.server.engine.step import StepDocument
from actvec.server.engine.weighing import GROUP
from actvec.server.errors import NotFiniteError
from actvec.server.model.target import Point, Target

Pools = NDArray[np.float32]
"""The pools of one document, `[L, K, D]` float32; L is 1 for the mean over layers."""

# Rows of a batch of slots, so that all products of one slot size have one shape. More rows mean
# fewer launches; fewer mean less padding in a step of one short document.
_BATCH_ROWS = {"cpu": 256, "cuda": 2048}


def layer_mean(layer_states: Sequence[torch.Tensor]) -> torch.Tensor:
    """Average the layers' states or pools, float32, in ascending order."""
    # Upcast before the mean: a mean of 16-bit states would lose digits.
    states = layer_states[0].float()
    for state in layer_states[1:]:
        states = states + state.float()
    return states / len(layer_states)


class StepPooling:
    """Pools the documents of one step, and adds their states to their sums.

    Args:
        documents: The documents, in the order of their states.
        default: The target of documents without one.
        device: The device of the states.

    Attributes:
        points: Where states are needed, in the order of a forward pass.
    """

    def __init__(
        self, documents: Sequence[StepDocument], default: Target, device: torch.device
    ) -> None:
        self._documents = documents
        self._targets = [document.target or default for document in documents]
        self._ends = np.cumsum([document.tokens for document in documents]).tolist()
        by_target: dict[Target, list[int]] = {}
        for index, target in enumerate(self._targets):
            by_target.setdefault(target, []).append(index)
        self._parts = [
            _Part(target, documents, self._ends, indices, device)
            for target, indices in by_target.items()
        ]
        summed = {
            target
            for target, document in zip(self._targets, documents, strict=True)
            if document.sums is not None
        }
        self._kept: dict[Target, list[torch.Tensor]] = {target: [] for target in summed}
        wanted = {point for target in by_target for point in target.points}
        self.points = sorted(wanted, key=lambda point: (point.place, point.hook))

    def take(self, point: Point, states: torch.Tensor) -> None:
        """Pool the states `[rows, D]` at a point; keep those to sum until the end."""
        for part in self._parts:
            if point.hook == part.target.hook and point.layer in part.target.layers:
                part.take(states)
                if part.target in self._kept:
                    self._kept[part.target].append(states)

    def results(self) -> list[Pools | Exception]:
        """Return the pools of each document, or its error; call it after the last point.

        A document gets an error if a state is not finite, which names the layer, or if its states
        could not be summed.

        Raises:
            RuntimeError: there is no memory for it, and no document was summed.
            AcceleratorError: the device is lost, and with it all sums.
        """
        found: dict[int, Pools | Exception] = {}
        for part in self._parts:
            found |= part.results()
        self._parts.clear()
        # Sum last: a failure before this may be retried, and must not have summed anything.
        states = {
            target: kept if target.separate else [layer_mean(kept)]
            for target, kept in self._kept.items()
        }
        for index, (document, end) in enumerate(zip(self._documents, self._ends, strict=True)):
            if document.sums is None or isinstance(found[index], Exception):
                continue
            own = [layer[end - document.tokens : end] for layer in states[self._targets[index]]]
            try:
                document.sums.add(*own)
            except torch.AcceleratorError:
                raise
            except (RuntimeError, MemoryError) as error:
                found[index] = error
        return [found[index] for index in range(len(self._documents))]


@dataclass(eq=False)
class _Slots:
    """Documents of one target with slots of one size.

    Attributes:
        indices: The documents, by index.
        weights: Float32 `[batches, groups, batch, 8, columns]`, padded with zeros.
        rows: Their slice of the part's gathered rows.
        pools: K, the most of any document.
        finite: Per layer, whether each document's states are finite.
        pooled: Per layer, the pools of each document; for averaged layers only their sum, with the
            row that shows whether all states are finite.
    """

    indices: list[int]
    weights: torch.Tensor
    rows: slice
    pools: int
    finite: list[torch.Tensor] = field(default_factory=list)
    pooled: list[torch.Tensor] = field(default_factory=list)


class _Part:
    """The documents of one target."""

    def __init__(
        self,
        target: Target,
        documents: Sequence[StepDocument],
        ends: Sequence[int],
        indices: Sequence[int],
        device: torch.device,
    ) -> None:
        self.target = target
        self._documents = documents
        batch_rows = _BATCH_ROWS.get(device.type, _BATCH_ROWS["cuda"])
        self._slots: list[_Slots] = []
        gathered: list[NDArray[np.int64]] = []
        start = 0

        def shape(index: int) -> tuple[int, ...]:
            return documents[index].weights.block.shape

        for (rows, columns), same in groupby(sorted(indices, key=shape), key=shape):
            chosen = list(same)
            batch = max(batch_rows // columns, 1)
            filled = -(-len(chosen) // batch) * batch
            block = np.zeros((filled, rows, columns), dtype=np.float32)
            np.stack([documents[i].weights.block for i in chosen], out=block[: len(chosen)])
            used = np.array([documents[i].weights.used for i in chosen])
            first = np.array([ends[i] for i in chosen]) - used
            # Columns beyond a document repeat its last token, with weight zero: if they held a
            # neighbor's state that is not finite, zero times it would be NaN.
            own = first[:, None] + np.minimum(np.arange(columns), used[:, None] - 1)
            gather = np.zeros((filled, columns), dtype=np.int64)
            gather[: len(chosen)] = own
            gather[len(chosen) :] = own[0]
            gathered.append(gather.reshape(-1))
            weights = torch.from_numpy(block).view(-1, batch, rows // GROUP, GROUP, columns)
            self._slots.append(
                _Slots(
                    chosen,
                    weights.transpose(1, 2).contiguous().to(device),
                    slice(start, start + gather.size),
                    max(documents[i].weights.pools for i in chosen),
                )
            )
            start += gather.size
        self._gather = torch.from_numpy(np.concatenate(gathered)).to(device)

    def take(self, states: torch.Tensor) -> None:
        """Pool one layer's states `[rows, D]`."""
        for slots in self._slots:
            pooled = self._product(slots, states.index_select(0, self._gather[slots.rows]))
            slots.finite.append(pooled[:, 0].isfinite().all(-1))
            self._add(slots, pooled)

    @staticmethod
    def _product(slots: _Slots, gathered: torch.Tensor) -> torch.Tensor:
        """Multiply gathered states `[rows, D]` to pools `[documents, groups * 8, D]`."""
        batches, groups, batch, group, columns = slots.weights.shape
        width = gathered.shape[-1]
        states = gathered.float().view(batches, batch, columns, width)
        out = states.new_empty((batches, groups, batch, group, width))
        for number in range(batches):
            for one in range(groups):
                torch.bmm(slots.weights[number, one], states[number], out=out[number, one])
        by_document = out.transpose(1, 2).reshape(batches * batch, groups * group, width)
        return by_document[: len(slots.indices)]

    def _add(self, slots: _Slots, pooled: torch.Tensor) -> None:
        if self.target.separate:
            slots.pooled.append(pooled[:, 1 : 1 + slots.pools].clone())
        elif not slots.pooled:
            slots.pooled.append(pooled[:, : 1 + slots.pools].clone())
        else:
            slots.pooled[0] += pooled[:, : 1 + slots.pools]

    def results(self) -> dict[int, Pools | Exception]:
        """Return the pools of each document, or an error that names the first bad layer."""
        found: dict[int, Pools | Exception] = {}
        for slots in self._slots:
            finite = torch.stack(slots.finite).cpu().numpy()
            values = torch.stack(slots.pooled, 1)
            if not self.target.separate:
                values = values / len(self.target.layers)
            pooled: NDArray[np.float32] = values.cpu().numpy()
            whole = np.logical_and.reduce(np.isfinite(pooled), axis=(1, 2, 3))
            pooled = pooled[:, :, 0 if self.target.separate else 1 :]
            for place, index in enumerate(slots.indices):
                if not finite[:, place].all():
                    layer = self.target.layers[int(finite[:, place].argmin())]
                    found[index] = NotFiniteError(layer, self.target.hook)
                elif not whole[place]:
                    found[index] = NotFiniteError(None, self.target.hook)
                else:
                    found[index] = pooled[place, :, : self._documents[index].weights.pools]
        return found
