"""Finds the attention and the MLP of a block by what they add, not by name.

Some model families scale or normalize the outputs of attention and MLP before adding them. The
outputs meant by `attn_out` and `mlp_out` are those which, added to the residual stream before the
block, give the stream after it.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import nn

from actvec.server.engine.plain import PlainEngine
from actvec.server.engine.selfcheck import DOCUMENT, SIXTEEN_BIT, distance, short_document
from actvec.server.model.decoder import Decoder, hidden
from actvec.server.model.loading import LoadedModel
from actvec.server.model.target import ATTN_OUT, HOOKS, MLP_OUT, RESID_POST, RESID_PRE, Point


def with_parts(model: LoadedModel) -> LoadedModel:
    """Add the hooks `attn_out` and `mlp_out` to the model's offer, if its blocks have them.

    They do if, in every block, the outputs of attention and MLP are all that the block adds to the
    residual stream.
    """
    ids = short_document(model)
    tolerance = DOCUMENT if model.card.dtype == "float32" else SIXTEEN_BIT
    plain = PlainEngine(model)
    on_device = torch.from_numpy(ids).to(model.card.device)[None]
    parts = _find_parts(plain.decoder, on_device, tolerance)
    if not parts:
        return model
    card = replace(model.card, hooks=HOOKS)
    found = replace(model, parts=parts, card=card)
    states = dict(
        zip(card.points, PlainEngine(found).layer_states([ids], card.points), strict=True)
    )
    for layer in card.layers_on_offer:
        before, attention, mlp, after = (
            states[Point(layer, hook)].double()
            for hook in (RESID_PRE, ATTN_OUT, MLP_OUT, RESID_POST)
        )
        if not distance([before + attention + mlp], [after])[0] <= tolerance:
            return model
    return found


@torch.inference_mode()
def _find_parts(decoder: Decoder, ids: torch.Tensor, tolerance: float) -> dict[str, str]:
    """Find the paths of attention and MLP within a block, by hook; empty if there are none.

    They are the two modules of the first block, the first of them an attention's, whose outputs are
    everything that the block adds to the residual stream. Every block must have modules there.

    Args:
        decoder: The blocks.
        ids: int64 `[1, T]`.
        tolerance: Relative L2 error allowed in the sum.
    """
    block = decoder.blocks[0]
    outputs: dict[str, torch.Tensor] = {}
    ends: dict[str, torch.Tensor] = {}

    def keeper(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            states = hidden(output)
            if isinstance(states, torch.Tensor) and states.shape == (1, *ends[RESID_PRE].shape):
                outputs[path] = states[0].double()

        return keep

    def end(point: Point, states: torch.Tensor) -> None:
        ends[point.hook] = states.double()

    with ExitStack() as handles:
        for path, module in block.named_modules():
            if path:
                handles.enter_context(module.register_forward_hook(keeper(path)))
        decoder.capture(ids, [Point(0, RESID_PRE), Point(0, RESID_POST)], end)
    added = ends[RESID_POST] - ends[RESID_PRE]
    allowed = tolerance * float(ends[RESID_POST].norm())
    # Outputs are in the order in which the modules ran.
    sums = [
        (float((added - outputs[attention] - outputs[mlp]).norm()), attention, mlp)
        for attention, mlp in combinations(outputs, 2)
        if "att" in attention.lower() and not mlp.startswith(f"{attention}.")
    ]
    right = [found for found in sums if found[0] <= allowed]
    for _, attention, mlp in sorted(right, key=lambda found: (found[0], len(found[1] + found[2]))):
        if all(_has(each, attention) and _has(each, mlp) for each in decoder.blocks):
            return {ATTN_OUT: attention, MLP_OUT: mlp}
    return {}


def _has(module: nn.Module, path: str) -> bool:
    return path in dict(module.named_modules())
