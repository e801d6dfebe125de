"""The independent reference: numerics.md written once more, without any of our code.

transformers runs one document at a time in float32, and float64 pools what it gives.
"""

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
