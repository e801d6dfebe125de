"""The reference: TransformerLens' default bridge, one document at a time, any hook point."""

from collections.abc import Sequence
from typing import Any

import torch

from actvec.server.bridge import default_bridge
from actvec.server.engine import Engine, Ids
from actvec.server.errors import StartupError
from actvec.server.model import LoadedModel


class LensEngine(Engine):
    """Runs documents through TransformerLens' own components. Slow, and independent of the packing.

    Args:
        model: The model, loaded whole.

    Raises:
        StartupError: the card's hook is not a hook point of the target blocks.
    """

    name = "lens"

    def __init__(self, model: LoadedModel) -> None:
        self.card = model.card
        self._bridge = default_bridge(model.module)
        point = model.card.hook if "hook_" in model.card.hook else f"hook_{model.card.hook}"
        self._hooks = [f"blocks.{layer}.{point}" for layer in model.card.layers]
        unknown = [hook for hook in self._hooks if hook not in self._bridge.hook_dict]
        if unknown:
            raise StartupError(f"TransformerLens has no hook point {unknown[0]!r} in this model")

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Each document alone."""
        return [[index] for index in range(len(lengths))]

    @torch.inference_mode()
    def layer_states(self, documents: Sequence[Ids]) -> list[torch.Tensor]:
        """The states `[T, D]` at the hook of each target layer, of one document."""
        (ids,) = documents
        states: list[torch.Tensor] = []

        def keep(state: torch.Tensor, hook: Any) -> None:  # noqa: ARG001 - TransformerLens' form
            states.append(state[0].flatten(1))

        self._bridge.run_with_hooks(
            torch.from_numpy(ids).to(self.card.device)[None],
            fwd_hooks=[(hook, keep) for hook in self._hooks],
            stop_at_layer=self.card.layers[-1] + 1,
            return_type=None,
            use_cache=False,
        )
        if any(state.shape != (len(ids), self.card.d_model) for state in states):
            raise StartupError(
                f"hook {self.card.hook!r} gives states of shapes "
                f"{[tuple(state.shape) for state in states]} for {len(ids)} tokens, where "
                f"a vector needs one of {self.card.d_model} numbers per token"
            )
        return states
