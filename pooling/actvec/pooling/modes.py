"""Modes: which pools a vector holds, in which order, and their matrix `W [K, T]`.

The depths 0.023, 0.067 and 0.159 are the normal distribution's tail areas at -2, -1.5 and -1
standard deviations, rounded to three decimals; the rounded values are the definition.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from actvec.pooling.curves import Exponential, LastToken, Pool

LAST = LastToken()
EXP_977 = Exponential("exp_977", 0.023)
EXP_933 = Exponential("exp_933", 0.067)
EXP_841 = Exponential("exp_841", 0.159)

MODES: Mapping[str, tuple[Pool, ...]] = MappingProxyType(
    {"short": (EXP_933,), "long": (LAST, EXP_977, EXP_933, EXP_841)}
)


def pools(mode: str) -> tuple[Pool, ...]:
    """The pools of a mode, in the order of its vector.

    Raises:
        ValueError: there is no such mode.
    """
    try:
        return MODES[mode]
    except KeyError:
        raise ValueError(f"no mode {mode!r}; the modes are {', '.join(MODES)}") from None


def pooling_matrix(mode: str, tokens: int) -> NDArray[np.float32]:
    """The matrix `W [K, T]` of a mode; the vector of states `H [T, D]` is `W @ H`, flattened.

    Raises:
        ValueError: there is no such mode, or `tokens` is less than 1.
    """
    return np.stack([pool.weights(tokens) for pool in pools(mode)]).astype(np.float32)


def pool_states(mode: str, states: NDArray[np.floating]) -> NDArray[np.float32]:
    """The vector `[K * D]` of token states `H [T, D]`, float32.

    Raises:
        ValueError: there is no such mode, or `states` is not a matrix of at least one row.
    """
    if states.ndim != 2:
        raise ValueError(f"token states are a matrix [T, D], not of shape {states.shape}")
    vector = pooling_matrix(mode, len(states)) @ states.astype(np.float32, copy=False)
    return np.asarray(vector.reshape(-1), dtype=np.float32)
