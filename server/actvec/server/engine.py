"""The engines: ids in, pooled vectors and sums out. The packed one, and what all have in common.

Documents of a packed step lie one after the other in one row; position ids restart with each,
linear layers run over all tokens at once and attention within each document.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from actvec.server.attention import PACKED, Segments, register_packed_attention
from actvec.server.decoder import Decoder, Hook
from actvec.server.linear import pack_linears
from actvec.server.model import LoadedModel, ModelCard
from actvec.server.pooler import Pools, layer_mean, pool_step
from actvec.server.rotary import rotate_in_place
from actvec.server.step import StepDocument

Ids = NDArray[np.int64]


class Engine(ABC):
    """What the runner drives. One thread owns it: hooks are not safe for more.

    Attributes:
        name: What `--engine` calls it.
        card: Its model.
        row_multiple: What the rows of a forward pass are a multiple of.
    """

    name: str
    card: ModelCard
    row_multiple = 1

    @abstractmethod
    def layer_states(self, documents: Sequence[Ids]) -> list[torch.Tensor]:
        """The states `[rows, D]` of each target layer, of documents that may share a forward pass.

        Args:
            documents: int64 ids `[T]` of each.

        Returns:
            Per layer, the states of the documents one after the other; `rows` is at least their
            tokens.

        Raises:
            RuntimeError: no state can be trusted.
        """

    @abstractmethod
    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which documents, by index, may share a forward pass, for documents of these lengths."""

    @torch.inference_mode()
    def run(self, documents: Sequence[StepDocument]) -> list[Pools | Exception]:
        """The pools `[K, D]` of each document of one group, or why it has none.

        Raises:
            RuntimeError: as for `layer_states`; no document was summed.
        """
        states = self.layer_states([document.ids for document in documents])
        return pool_step(states, self.card.layers, documents)

    @torch.inference_mode()
    def states(self, ids: Ids) -> NDArray[np.float32]:
        """The states `H` `[T, D]` of one document of these ids, averaged over the target layers.

        Raises:
            RuntimeError: as for `layer_states`.
        """
        states: NDArray[np.float32] = layer_mean(self.layer_states([ids]))[: len(ids)].cpu().numpy()
        return states

    def rows(self, tokens: int) -> int:
        """Rows of the forward pass that takes this many tokens: it is filled up."""
        return -(-tokens // self.row_multiple) * self.row_multiple


class PackedEngine(Engine):
    """Runs many documents in one forward pass of a truncated model.

    Args:
        model: The model, without its ends; the engine's from now on.
        hooks: TransformerLens hook functions by name, for example `blocks.5.hook_resid_post`, that
            see and may replace the residual stream `[1, rows, D]` of every step.
        arranged: Whether weights are laid out and rotary embeddings written as they are fastest
            here. The model's own modules are gone then.
    """

    name = "packed"

    # A step is filled up by a segment of its own, which no document sees, to a multiple of so many
    # rows. Products of few rows are computed by other kernels, with other roundings: of 1 on a CPU,
    # of fewer than 32 on an H200. And oneDNN makes a kernel for each number of rows that it meets,
    # while a GPU computes whole tiles anyway.
    _ROWS = MappingProxyType({"cpu": 16, "cuda": 256})

    def __init__(
        self, model: LoadedModel, hooks: Sequence[tuple[str, Hook]] = (), *, arranged: bool = True
    ) -> None:
        self.card = model.card
        register_packed_attention()
        model.module.set_attn_implementation(PACKED)
        if arranged and model.module.device.type == "cpu":
            pack_linears(model.module)
        elif arranged:
            rotate_in_place(model.module)
        self._decoder = Decoder.of(model.module)
        self._device = torch.device(model.card.device)
        self._row_thresholds = model.row_thresholds
        self._hooks = list(hooks)
        self.row_multiple = self._ROWS.get(self._device.type, self._ROWS["cuda"])

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """All documents, but where rotary embeddings depend on the longest: those alike."""
        groups: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            side = sum(length > threshold for threshold in self._row_thresholds)
            groups.setdefault(side, []).append(index)
        return list(groups.values())

    @torch.inference_mode()
    def layer_states(self, documents: Sequence[Ids]) -> list[torch.Tensor]:
        """The states `[rows, D]` of each target layer.

        Raises:
            RuntimeError: the model did not run the packed attention in every block, or gave another
                number of states than there are tokens.
        """
        tokens = sum(map(len, documents))
        rows = self.rows(tokens)
        filling = [np.zeros(rows - tokens, dtype=np.int64)] if rows > tokens else []
        segments = Segments([len(ids) for ids in (*documents, *filling)], self._device)
        ids = torch.from_numpy(np.concatenate([*documents, *filling]))
        # What fills the step is at position 0: no document's frequencies depend on it.
        positions = torch.from_numpy(
            np.concatenate([*map(np.arange, map(len, documents)), *filling])
        )
        states = self._decoder.states(
            ids.to(self._device)[None],
            self.card.layers,
            self._hooks,
            position_ids=positions.to(self._device)[None],
            segments=segments,
        )
        blocks = len(self._decoder.blocks)
        if segments.calls != blocks or any(len(state) != rows for state in states):
            raise RuntimeError(
                f"the packed attention ran {segments.calls} times for {blocks} blocks and "
                f"gave {[len(state) for state in states]} states for {rows} tokens"
            )
        return states
