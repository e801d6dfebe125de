"""From the states of a step to the pools of its documents, in float32, on the states' device."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from actvec.pooling import MODES, pooling_matrix
from actvec.server.errors import NotFiniteError

Pools = NDArray[np.float32]
"""The pools of one document, `[K, D]` float32, in the order of mode `long`."""


_POOLS = len(MODES["long"])


@lru_cache(maxsize=1024)
def _weights(tokens: int) -> torch.Tensor:
    """`W [K, T]` of mode `long`. Every other mode is a selection of its rows."""
    return torch.from_numpy(pooling_matrix("long", tokens))


def pool_step(
    layer_states: Sequence[torch.Tensor], layers: Sequence[int], lengths: Sequence[int]
) -> list[Pools | NotFiniteError]:
    """Average the target layers and pool each document.

    All pools are computed for every document, with products of the same shape wherever it stands,
    so that its vector depends neither on its neighbours nor on the mode.

    Args:
        layer_states: For each target layer `[T, D]`, T at least the sum of `lengths`.
        layers: The numbers of the target layers, for errors.
        lengths: Tokens of each document, in the order of the states.

    Returns:
        For each document its pools, or an error naming the layer that is not finite.
    """
    # Upcast before the mean: a mean of 16-bit states would lose digits.
    states = layer_states[0].float()
    for state in layer_states[1:]:
        states = states + state.float()
    states /= len(layer_states)

    bounds = [0, *np.cumsum(lengths).tolist()]
    # One upload a step, in which each W lies contiguous.
    weights = torch.cat([_weights(length).flatten() for length in lengths]).to(states.device)
    pooled = torch.stack(
        [
            weights[_POOLS * start : _POOLS * end].view(_POOLS, -1) @ states[start:end]
            for start, end in pairwise(bounds)
        ]
    )
    # Every weight of the exponential pools is positive: a state that is not finite makes its pool
    # so, and the vectors can be checked in place of the states.
    values = pooled.cpu().numpy()
    finite = np.isfinite(values).all(axis=(1, 2))
    return [
        values[index]
        if finite[index]
        else _not_finite(layer_states, layers, bounds[index], bounds[index + 1])
        for index in range(len(lengths))
    ]


def _not_finite(
    layer_states: Sequence[torch.Tensor], layers: Sequence[int], start: int, end: int
) -> NotFiniteError:
    for layer, states in zip(layers, layer_states, strict=True):
        if not torch.isfinite(states[start:end]).all():
            return NotFiniteError(layer)
    return NotFiniteError(None)
