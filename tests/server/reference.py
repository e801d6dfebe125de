"""The independent reference: numerics.md implemented again, without any of our code.

transformers runs one document at a time in float32, and float64 pools its states.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

HALF_LIVES = {"exp_977": 0.023, "exp_933": 0.067, "exp_841": 0.159}


def reference_states(
    module: PreTrainedModel, ids: NDArray[np.int64], layers: tuple[int, ...]
) -> NDArray[np.float64]:
    """`H [T, D]`: the mean of the states after the target blocks.

    `hidden_states[0]` is the embedding, so block `l` gives `hidden_states[l + 1]`; the last block's
    entry is after the final norm, hence the spare block in the tests' models.
    """
    assert max(layers) + 1 < module.config.num_hidden_layers
    with torch.inference_mode():
        out = module(torch.from_numpy(ids)[None], output_hidden_states=True, use_cache=False)
    return np.mean([out.hidden_states[layer + 1][0].double().numpy() for layer in layers], axis=0)


def reference_pools(states: NDArray[np.float64]) -> NDArray[np.float64]:
    """The pools `[4, D]` of mode long, by the formulas, in float64."""
    tokens = len(states)
    distance = tokens - 1 - np.arange(tokens)
    rows = [(distance == 0).astype(float)]
    for half_life in HALF_LIVES.values():
        curve = 2.0 ** (-distance / (half_life * tokens))
        rows.append(curve / curve.sum())
    return np.stack(rows) @ states


def relative_error(values: NDArray[np.floating], reference: NDArray[np.float64]) -> float:
    """Relative L2 error."""
    return float(np.linalg.norm(values - reference) / np.linalg.norm(reference))


def cosine(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Cosine of two vectors, in float64."""
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


# The names of attention and MLP in the blocks of GPT-NeoX and Llama.
MODULES = {"attn_out": ("attention", "self_attn"), "mlp_out": ("mlp",)}


def reference_layers(
    module: PreTrainedModel, ids: Sequence[int], hook: str, layers: Sequence[int]
) -> NDArray[np.float64]:
    """States `[L, T, D]` at a hook of some blocks, by torch's forward hooks."""
    base = module.base_model
    found: dict[int, NDArray[np.float64]] = {}

    def keep(layer: int, states: object) -> None:
        tensor = states[0] if isinstance(states, tuple) else states
        found[layer] = tensor[0].double().numpy().copy()

    handles = []
    for layer in layers:
        block = base.layers[layer]
        if hook == "resid_pre":
            take = lambda _, args, layer=layer: keep(layer, args)  # noqa: E731
            handles.append(block.register_forward_pre_hook(take))
            continue
        names = MODULES.get(hook, ())
        part = next((getattr(block, name) for name in names if hasattr(block, name)), block)
        take = lambda _, __, out, layer=layer: keep(layer, out)  # noqa: E731
        handles.append(part.register_forward_hook(take))
    try:
        with torch.inference_mode():
            module(torch.tensor([list(ids)]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return np.stack([found[layer] for layer in layers])


def reference_row(
    pool: str, tokens: int, *, bos: bool, dropped: int, spans: Mapping[str, Sequence[int]]
) -> NDArray[np.float64]:
    """The weights of a pool for the last tokens of a document, by the formulas."""
    kind, _, argument = pool.partition(":")
    distance = tokens - 1.0 - np.arange(tokens)
    if kind in HALF_LIVES or kind in {"exp", "exp_tokens"}:
        part = HALF_LIVES.get(kind) or float(argument)
        row = 2.0 ** (-distance / (part if kind == "exp_tokens" else part * tokens))
    else:
        row = np.zeros(tokens)
        if kind == "span":
            row[[index - dropped for index in spans[argument] if index >= dropped]] = 1
        elif kind == "position":
            row[int(argument) - (dropped if int(argument) >= 0 else 0)] = 1
        elif kind == "last":
            row[-1] = 1
        else:
            row[int(kind == "mean_no_bos" and bos and not dropped) :] = 1
    return row / row.sum()
