"""The base of all engines, and the packed one: ids in, pooled vectors and sums out.

Documents of a packed step follow each other in one row; position ids restart with each, linear
layers run over all tokens at once and attention within each document.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from actvec.server.engine.pools import Pools, StepPooling, layer_mean
from actvec.server.engine.step import StepDocument
from actvec.server.model.card import ModelCard
from actvec.server.model.decoder import Decoder
from actvec.server.model.loading import LoadedModel
from actvec.server.model.packed.activations import fuse_activations
from actvec.server.model.packed.attention import PACKED, Segments, register_packed_attention
from actvec.server.model.packed.blocked import Blocks
from actvec.server.model.packed.experts import fill_experts
from actvec.server.model.packed.linear import pack_linears
from actvec.server.model.packed.rotary import rotate_in_place
from actvec.server.model.target import Point, Take

Ids = NDArray[np.int64]


class Engine(ABC):
    """The interface that the runner drives. A single thread owns it: hooks are not thread-safe.

    Attributes:
        name: Its name for operators and clients: `packed`, `plain` or `lens`.
        card: Its model.
        row_multiple: The rows of a forward pass are a multiple of this.
    """

    name: str
    card: ModelCard
    row_multiple = 1

    @abstractmethod
    def capture(self, documents: Sequence[Ids], points: Sequence[Point], take: Take) -> None:
        """Run documents that may share a forward pass, and pass their states on.

        Args:
            documents: int64 ids `[T]` of each.
            points: Where to capture states, in the order of a forward pass.
            take: Receives the states `[rows, D]` at each point as soon as they exist, document
                after document; `rows` is at least their total tokens.

        Raises:
            RuntimeError: no state can be trusted.
        """

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group documents of these lengths, by index; those of a group may share a forward pass.

        By default each document is a group.
        """
        return [[index] for index in range(len(lengths))]

    @torch.inference_mode()
    def run(self, documents: Sequence[StepDocument]) -> list[Pools | Exception]:
        """Compute the pools `[L, K, D]` of each document of one group, or its error.

        Raises:
            RuntimeError: as for `capture`, and no document was summed; or the device is lost.
        """
        pooling = StepPooling(documents, self.card.target, torch.device(self.card.device))
        self.capture([document.ids for document in documents], pooling.points, pooling.take)
        return pooling.results()

    @torch.inference_mode()
    def layer_states(
        self, documents: Sequence[Ids], points: Sequence[Point] | None = None
    ) -> list[torch.Tensor]:
        """Compute the states `[rows, D]` at each point, by default those of the model's target.

        Raises:
            RuntimeError: as for `capture`.
        """
        asked = self.card.target.points if points is None else points
        found: dict[Point, torch.Tensor] = {}
        self.capture(documents, asked, found.__setitem__)
        return [found[point] for point in asked]

    def states(self, ids: Ids) -> NDArray[np.float32]:
        """Compute the states `H` `[T, D]` of one document, averaged over the target's layers.

        Raises:
            RuntimeError: as for `capture`.
        """
        states: NDArray[np.float32] = layer_mean(self.layer_states([ids]))[: len(ids)].cpu().numpy()
        return states

    def rows(self, tokens: int) -> int:
        """Rows of a forward pass with this many tokens, rounded up."""
        return -(-tokens // self.row_multiple) * self.row_multiple


class PackedEngine(Engine):
    """Runs many documents in one forward pass of a truncated model.

    Args:
        model: The model, without its ends; the engine owns it from now on.
        arranged: Whether to lay out weights, compute activations and write rotary embeddings in the
            fastest way for this device, which replaces the model's own modules.
    """

    name = "packed"

    # A segment of its own, which no document sees, pads a step to a multiple of so many rows.
    # Products of few rows use other kernels, with other roundings: 1 row on a CPU, fewer than 32 on
    # an H200. And oneDNN creates a kernel for each number of rows that it meets, while a GPU
    # computes whole tiles anyway.
    _ROWS = MappingProxyType({"cpu": 16, "cuda": 256})

    def __init__(self, model: LoadedModel, *, arranged: bool = True) -> None:
        self.card = model.card
        register_packed_attention()
        model.module.set_attn_implementation(PACKED)
        if arranged:
            fuse_activations(model.module)
            if model.module.device.type == "cpu":
                pack_linears(model.module)
                fill_experts(model.module)
            else:
                rotate_in_place(model.module)
        self._decoder = Decoder.of(model.module, model.parts)
        self._device = torch.device(model.card.device)
        self._blocks = Blocks.of(model.module)
        self._row_thresholds = model.row_thresholds
        self.row_multiple = self._ROWS.get(self._device.type, self._ROWS["cuda"])

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Put documents in one group, except if rotary embeddings depend on their length."""
        groups: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            side = sum(length > threshold for threshold in self._row_thresholds)
            groups.setdefault(side, []).append(index)
        return list(groups.values())

    @torch.inference_mode()
    def capture(self, documents: Sequence[Ids], points: Sequence[Point], take: Take) -> None:
        """Run the documents in one packed step.

        Raises:
            RuntimeError: the model did not run the packed attention in every block, or returned
                another number of states than there are tokens.
        """
        tokens = sum(map(len, documents))
        rows = self.rows(tokens)
        filling = [np.zeros(rows - tokens, dtype=np.int64)] if rows > tokens else []
        lengths = [len(ids) for ids in (*documents, *filling)]
        segments = Segments(lengths, self._device, self._blocks)
        ids = torch.from_numpy(np.concatenate([*documents, *filling]))
        # The padding is at position 0: no document's frequencies depend on it.
        positions = torch.from_numpy(
            np.concatenate([*map(np.arange, map(len, documents)), *filling])
        )

        def checked(point: Point, states: torch.Tensor) -> None:
            if len(states) != rows:
                raise RuntimeError(f"block {point.layer} gave {len(states)} states for {rows} rows")
            take(point, states)

        blocks = self._decoder.capture(
            ids.to(self._device)[None],
            points,
            checked,
            position_ids=positions.to(self._device)[None],
            segments=segments,
        )
        if segments.calls != blocks:
            raise RuntimeError(
                f"the packed attention ran {segments.calls} times for {blocks} blocks"
            )
