"""Presets; pools as a matrix `W [K, T]`; and pooled vectors."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from actvec.pooling.curves import NAMED_DEPTHS, exponential, last_token
from actvec.pooling.pool import Pool, PoolTokens
from actvec.pooling.written import distinct, parse_pool

LAST = last_token()
EXP_977, EXP_933, EXP_841 = map(exponential, NAMED_DEPTHS.values())

PRESETS: Mapping[str, tuple[Pool, ...]] = MappingProxyType(
    {"short": (EXP_933,), "long": (LAST, EXP_977, EXP_933, EXP_841)}
)
MODES = PRESETS
"""The presets by mode name, as in the contract."""

Pools = str | Sequence[Pool | str]
"""Pools as functions accept them: the name of a preset, or a list of `Pool`s or written pools."""


def pools(mode: str) -> tuple[Pool, ...]:
    """The pools of a mode, in the order of its vector.

        >>> [pool.name for pool in pools("long")]
        ['last', 'exp_977', 'exp_933', 'exp_841']

    Raises:
        ValueError: the mode is unknown.
    """
    try:
        return PRESETS[mode]
    except KeyError:
        raise ValueError(f"no mode {mode!r}; the modes are {', '.join(PRESETS)}") from None


def as_pools(given: Pools) -> tuple[Pool, ...]:
    """The pools of a preset or a list, each once.

    Raises:
        ValueError: the preset is unknown.
        PoolError: a pool is invalid, or named twice.
    """
    if isinstance(given, str):
        return pools(given)
    made = [pool if isinstance(pool, Pool) else parse_pool(pool) for pool in given]
    return distinct(made, [pool.name if isinstance(pool, Pool) else pool for pool in given])


def preset_of(given: Sequence[Pool | str]) -> str | None:
    """The preset with exactly these pools in this order, or None.

        >>> preset_of(["exp:0.067"])
        'short'

    Raises:
        PoolError: a pool is invalid, or named twice.
    """
    asked = as_pools(given)
    return next((name for name, preset in PRESETS.items() if preset == asked), None)


def pooling_matrix(given: Pools, tokens: int | PoolTokens) -> NDArray[np.float32]:
    """The float32 matrix `W [K, T]` of pools; states `H [T, D]` pool to `W @ H`, flattened.

        >>> pooling_matrix(["last", "mean"], 4)
        array([[0.  , 0.  , 0.  , 1.  ],
               [0.25, 0.25, 0.25, 0.25]], dtype=float32)

    Raises:
        ValueError: a preset or pool is unknown, or there is less than one token.
        DocumentError: the document does not fit a pool.
    """
    known = PoolTokens(tokens) if isinstance(tokens, int) else tokens
    return np.stack([pool.row(known) for pool in as_pools(given)])


def pool_states(
    given: Pools, states: NDArray[np.floating], tokens: PoolTokens | None = None
) -> NDArray[np.float32]:
    """The vector `[K * D]` of token states `H [T, D]`, or `[L * K * D]` of `[L, T, D]`, float32.

        >>> pool_states("long", np.ones((9, 512))).shape
        (2048,)

    Args:
        given: The pools.
        states: The states of the pooled tokens.
        tokens: A description of the tokens, for pools that depend on more than their number.

    Raises:
        ValueError: a preset or pool is unknown, or the states have another shape or no token.
        DocumentError: the document does not fit a pool.
    """
    if states.ndim not in {2, 3}:
        raise ValueError(f"token states are [T, D] or [L, T, D], not of shape {states.shape}")
    matrix = pooling_matrix(given, tokens or states.shape[-2])
    vector = matrix @ states.astype(np.float32, copy=False)
    return np.asarray(vector.reshape(-1), dtype=np.float32)
