"""From the states of a step to the pools of its documents, in float32, on the states' device."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from actvec.pooling import MODES, pooling_matrix
from actvec.server.errors import NotFiniteError
from actvec.server.step import StepDocument

Pools = NDArray[np.float32]
"""The pools of one document, `[K, D]` float32, in the order of mode `long`."""

_POOLS = len(MODES["long"])


@lru_cache(maxsize=1024)
def _weights(tokens: int) -> torch.Tensor:
    """`W [K, T]` of mode `long`. Every other mode is a selection of its rows."""
    return torch.from_numpy(pooling_matrix("long", tokens))


def layer_mean(layer_states: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean `[T, D]` of the target layers' states, float32."""
    # Upcast before the mean: a mean of 16-bit states would lose digits.
    states = layer_states[0].float()
    for state in layer_states[1:]:
        states = states + state.float()
    return states / len(layer_states)


def pool_step(
    layer_states: Sequence[torch.Tensor], layers: Sequence[int], documents: Sequence[StepDocument]
) -> list[Pools | Exception]:
    """Average the target layers, pool each document, and add its states where they are summed.

    All pools are computed for every document, with products of the same shape wherever it stands,
    so that its vector depends neither on its neighbours nor on the mode.

    Args:
        layer_states: For each target layer `[T, D]`, T at least the tokens of all documents.
        layers: The numbers of the target layers, for errors.
        documents: The documents, in the order of the states.

    Returns:
        For each document its pools, or why it has none: an error naming the layer that is not
        finite, or what kept its states from being summed.

    Raises:
        RuntimeError: there is no memory for it; no document was summed.
    """
    states = layer_mean(layer_states)
    ends = np.cumsum([document.tokens for document in documents]).tolist()
    values = _pool(states, documents, ends)
    # Every weight of the exponential pools is positive: a state that is not finite makes its pool
    # so, and the vectors can be checked in place of the states.
    results: list[Pools | Exception] = [
        pools
        if np.isfinite(pools).all()
        else _not_finite(layer_states, layers, slice(end - document.pooled, end))
        for pools, document, end in zip(values, documents, ends, strict=True)
    ]
    # Last: what failed before may be run again, and must not have been summed.
    for index, (document, end) in enumerate(zip(documents, ends, strict=True)):
        if document.sums is not None and not isinstance(results[index], Exception):
            try:
                document.sums.add(states[end - document.tokens : end])
            except (RuntimeError, MemoryError) as error:
                results[index] = error
    return results


def _pool(
    states: torch.Tensor, documents: Sequence[StepDocument], ends: Sequence[int]
) -> NDArray[np.float32]:
    """The pools `[documents, K, D]`."""
    # One upload a step, in which each W lies contiguous.
    matrices = [_weights(document.pooled).flatten() for document in documents]
    weights = torch.cat(matrices).to(states.device)
    pooled = []
    start = 0
    for document, end in zip(documents, ends, strict=True):
        matrix = weights[start : start + _POOLS * document.pooled].view(_POOLS, -1)
        start += _POOLS * document.pooled
        pooled.append(matrix @ states[end - document.pooled : end])
    return torch.stack(pooled).cpu().numpy()


def _not_finite(
    layer_states: Sequence[torch.Tensor], layers: Sequence[int], document: slice
) -> NotFiniteError:
    for layer, states in zip(layers, layer_states, strict=True):
        if not torch.isfinite(states[document]).all():
            return NotFiniteError(layer)
    return NotFiniteError(None)
