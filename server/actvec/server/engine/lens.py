"""The reference: TransformerLens' default bridge, one document at a time, any hook point."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from actvec.server.engine.packed import Engine, Ids
from actvec.server.errors import StartupError
from actvec.server.model.bridge import default_bridge
from actvec.server.model.decoder import Decoder
from actvec.server.model.loading import LoadedModel
from actvec.server.model.target import HOOKS, Point, Take


class LensEngine(Engine):
    """Runs documents through TransformerLens' own components. Slow, and independent of packing.

    Args:
        model: The whole model.

    Raises:
        StartupError: the card's hook is not a hook point of the target blocks.
    """

    name = "lens"

    def __init__(self, model: LoadedModel) -> None:
        self._bridge = default_bridge(model.module, len(Decoder.of(model.module).blocks))
        own, layers = model.card.hook, model.card.layers_on_offer
        unknown = [point for point in model.card.target.points if not self._has(point)]
        if unknown:
            name = _name(unknown[0])
            raise StartupError(f"TransformerLens has no hook point {name!r} in this model")
        hooks = [
            hook
            for hook in dict.fromkeys((*HOOKS, own))
            if all(self._has(Point(layer, hook)) for layer in layers)
        ]
        self.card = replace(model.card, hooks=tuple(hooks))

    def _has(self, point: Point) -> bool:
        return _name(point) in self._bridge.hook_dict

    @torch.inference_mode()
    def capture(self, documents: Sequence[Ids], points: Sequence[Point], take: Take) -> None:
        """Run one document.

        Raises:
            StartupError: a hook does not run once, or does not give D numbers per token.
        """
        (ids,) = documents
        shape = (len(ids), self.card.d_model)
        seen: Counter[Point] = Counter()

        def taker(point: Point) -> Callable[..., None]:
            def taken(state: torch.Tensor, hook: Any) -> None:  # noqa: ARG001 - hooks' signature
                states = state[0].flatten(1)
                if states.shape != shape:
                    raise StartupError(
                        f"hook {point.hook!r} gives states of shape {tuple(states.shape)} for "
                        f"{len(ids)} tokens, where a vector needs one of {self.card.d_model} "
                        "numbers per token"
                    )
                seen[point] += 1
                take(point, states)

            return taken

        self._bridge.run_with_hooks(
            torch.from_numpy(ids).to(self.card.device)[None],
            fwd_hooks=[(_name(point), taker(point)) for point in points],
            stop_at_layer=max(point.layer for point in points) + 1,
            return_type=None,
            use_cache=False,
        )
        if odd := [point for point in points if seen[point] != 1]:
            raise StartupError(
                f"TransformerLens runs {_name(odd[0])!r} {seen[odd[0]]} times for a document"
            )


def _name(point: Point) -> str:
    """The TransformerLens name of a point."""
    hook = point.hook if "hook_" in point.hook else f"hook_{point.hook}"
    return f"blocks.{point.layer}.{hook}"
