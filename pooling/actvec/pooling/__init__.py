"""The mathematics of a vector: from token states `H [T, D]` to `W(T) @ H`.

numpy only, so that a client can check what a server computed.
"""

from actvec.pooling.curves import Exponential, LastToken, Pool
from actvec.pooling.identity import PoolIdentity, check_identity
from actvec.pooling.mean import MeanAccumulator, pooled_mean
from actvec.pooling.modes import (
    EXP_841,
    EXP_933,
    EXP_977,
    LAST,
    MODES,
    pool_states,
    pooling_matrix,
    pools,
)

__all__ = [
    "EXP_841",
    "EXP_933",
    "EXP_977",
    "LAST",
    "MODES",
    "Exponential",
    "LastToken",
    "MeanAccumulator",
    "Pool",
    "PoolIdentity",
    "check_identity",
    "pool_states",
    "pooled_mean",
    "pooling_matrix",
    "pools",
]
