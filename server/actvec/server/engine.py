"""The packed engine: a step of documents, one forward pass, no padding.

Documents lie one after the other in one row; position ids restart with each, linear layers run over
all tokens at once and attention within each document.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from actvec.server.attention import Segments
from actvec.server.bridge import Hook, thin_bridge
from actvec.server.errors import StartupError
from actvec.server.linear import pack_linears
from actvec.server.model import LoadedModel, ModelCard
from actvec.server.pooler import Pools, layer_mean, pool_step
from actvec.server.rotary import rotate_in_place
from actvec.server.step import StepDocument


class Engine(Protocol):
    """What the scheduler drives. One thread owns it: hooks are not safe for more."""

    name: str
    card: ModelCard

    def run(self, documents: Sequence[StepDocument]) -> list[Pools | Exception]:
        """The pools `[K, D]` of each document, or why it has none."""
        ...


def warm_up(engine: Engine) -> None:
    """Run one token, so that kernels are ready and a model that cannot be run is known at once.

    Raises:
        StartupError: the engine cannot run the model.
    """
    try:
        engine.run([StepDocument(np.zeros(1, dtype=np.int64))])
    except RuntimeError as error:
        raise StartupError(f"cannot run {engine.card.model!r}: {error}") from error


class PackedEngine:
    """Runs steps of documents through the thin bridge of a truncated model.

    Args:
        model: The model, loaded without its ends; the engine's from now on, which lays out its
            weights as it likes.
        hooks: TransformerLens hook functions by name, for example `blocks.5.hook_resid_post`, that
            see and may replace the residual stream `[1, rows, D]` of every step.

    Attributes:
        row_multiple: What the rows of a step are a multiple of.
    """

    name = "packed"

    # A step is filled up by a segment of its own, which no document sees, to a multiple of so many
    # rows. Products of few rows are computed by other kernels, with other roundings: of 1 on a CPU,
    # of fewer than 32 on an H200. And oneDNN makes a kernel for each number of rows that it meets,
    # while a GPU computes whole tiles anyway.
    _ROWS = MappingProxyType({"cpu": 16, "cuda": 256})

    def __init__(self, model: LoadedModel, hooks: Sequence[tuple[str, Hook]] = ()) -> None:
        self.card = model.card
        if model.module.device.type == "cpu":
            pack_linears(model.module)
        else:
            rotate_in_place(model.module)
        self._bridge = thin_bridge(model.module)
        self._device = torch.device(model.card.device)
        self.row_multiple = self._ROWS.get(self._device.type, self._ROWS["cuda"])
        self._blocks = model.card.layers[-1] + 1
        self._hooks = list(hooks)

    @torch.inference_mode()
    def run(self, documents: Sequence[StepDocument]) -> list[Pools | Exception]:
        """The pools `[K, D]` of each document, or why it has none.

        Raises:
            RuntimeError: the model did not run the packed attention in every block, or gave another
                number of states than there are tokens: no vector can be trusted.
        """
        states = self._layer_states([document.ids for document in documents])
        return pool_step(states, self.card.layers, documents)

    @torch.inference_mode()
    def states(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The states `H` `[T, D]` of one document of these ids, averaged over the target layers.

        Raises:
            RuntimeError: as for `run`.
        """
        states: NDArray[np.float32] = (
            layer_mean(self._layer_states([ids]))[: len(ids)].cpu().numpy()
        )
        return states

    def _layer_states(self, packed: list[NDArray[np.int64]]) -> list[torch.Tensor]:
        """The residual stream `[rows, D]` after each target layer, of documents in a row."""
        tokens = sum(map(len, packed))
        rows = self.rows(tokens)
        if rows > tokens:
            packed = [*packed, np.zeros(rows - tokens, dtype=np.int64)]
        segments = Segments([len(ids) for ids in packed], self._device)
        ids = torch.from_numpy(np.concatenate(packed)).to(self._device)
        positions = torch.from_numpy(np.concatenate([np.arange(n) for n in segments.lengths]))
        states = self._forward(ids[None], positions.to(self._device)[None], segments)
        if segments.calls != self._blocks or any(len(state) != rows for state in states):
            raise RuntimeError(
                f"the packed attention ran {segments.calls} times for {self._blocks} blocks and "
                f"gave {[len(state) for state in states]} states for {rows} tokens"
            )
        return states

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, segments: Segments
    ) -> list[torch.Tensor]:
        """The residual stream `[T, D]` after each target layer."""
        states: list[torch.Tensor] = []

        def keep(state: torch.Tensor, hook: Any) -> None:  # noqa: ARG001 - TransformerLens' form
            states.append(state[0])

        self._bridge.run_with_hooks(
            ids,
            # The callers' hooks first: what they replace is what is pooled.
            fwd_hooks=[
                *self._hooks,
                *((f"blocks.{layer}.hook_resid_post", keep) for layer in self.card.layers),
            ],
            return_type=None,
            position_ids=positions,
            segments=segments,
            use_cache=False,
        )
        return states

    def rows(self, tokens: int) -> int:
        """Rows of the step that takes this many tokens: a step is filled up."""
        return -(-tokens // self.row_multiple) * self.row_multiple
