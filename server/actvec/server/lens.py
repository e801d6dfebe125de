"""The referee: TransformerLens' default bridge, one document at a time, any hook point."""

from collections.abc import Sequence
from typing import Any

import torch

from actvec.server.bridge import default_bridge
from actvec.server.errors import StartupError
from actvec.server.model import LoadedModel
from actvec.server.pooler import Pools, pool_step
from actvec.server.step import StepDocument


class LensEngine:
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

    @torch.inference_mode()
    def run(self, documents: Sequence[StepDocument]) -> list[Pools | Exception]:
        """The pools `[K, D]` of each document, or why it has none."""
        return [self._run_one(document) for document in documents]

    def _run_one(self, document: StepDocument) -> Pools | Exception:
        states: list[torch.Tensor] = []

        def keep(state: torch.Tensor, hook: Any) -> None:  # noqa: ARG001 - TransformerLens' form
            states.append(state[0].flatten(1))

        self._bridge.run_with_hooks(
            torch.from_numpy(document.ids).to(self.card.device)[None],
            fwd_hooks=[(hook, keep) for hook in self._hooks],
            stop_at_layer=self.card.layers[-1] + 1,
            return_type=None,
            use_cache=False,
        )
        if any(state.shape != (document.tokens, self.card.d_model) for state in states):
            raise StartupError(
                f"hook {self.card.hook!r} gives states of shapes "
                f"{[tuple(state.shape) for state in states]} for {document.tokens} tokens, where "
                f"a vector needs one of {self.card.d_model} numbers a token"
            )
        return pool_step(states, self.card.layers, [document])[0]
