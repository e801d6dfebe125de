"""The mathematics of a vector: from token states `H [T, D]` to `W(T) @ H`.

It needs numpy alone, so a client can check what a server computed.

    >>> import numpy as np
    >>> from actvec.pooling import pool_states, pooling_matrix
    >>> pooling_matrix(["mean", "last"], 4)
    array([[0.25, 0.25, 0.25, 0.25],
           [0.  , 0.  , 0.  , 1.  ]], dtype=float32)
    >>> pool_states("short", np.ones((4, 512))).shape
    (512,)
"""

from actvec.pooling.digest import ids_digest, messages_digest, text_digest
from actvec.pooling.errors import (
    DocumentError,
    EmptySpanError,
    NoSpanError,
    NoTokenError,
    PoolError,
    PositionError,
)
from actvec.pooling.identity import PoolIdentity, check_identity
from actvec.pooling.mean import MeanAccumulator, pooled_mean
from actvec.pooling.modes import (
    EXP_841,
    EXP_933,
    EXP_977,
    LAST,
    MODES,
    PRESETS,
    Pools,
    as_pools,
    pool_states,
    pooling_matrix,
    pools,
    preset_of,
)
from actvec.pooling.pool import Pool, PoolTokens, Weights
from actvec.pooling.written import (
    SPAN_NAME,
    PoolFactory,
    parse_pool,
    parse_pools,
    pool_kinds,
    register_pool,
)

__all__ = [
    "EXP_841",
    "EXP_933",
    "EXP_977",
    "LAST",
    "MODES",
    "PRESETS",
    "SPAN_NAME",
    "DocumentError",
    "EmptySpanError",
    "MeanAccumulator",
    "NoSpanError",
    "NoTokenError",
    "Pool",
    "PoolError",
    "PoolFactory",
    "PoolIdentity",
    "PoolTokens",
    "Pools",
    "PositionError",
    "Weights",
    "as_pools",
    "check_identity",
    "ids_digest",
    "messages_digest",
    "parse_pool",
    "parse_pools",
    "pool_kinds",
    "pool_states",
    "pooled_mean",
    "pooling_matrix",
    "pools",
    "preset_of",
    "register_pool",
    "text_digest",
]
