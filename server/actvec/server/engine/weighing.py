"""The pooling matrix of a document, in the shape of the engine's products.

A product's rounding depends on its shape. So rows come in groups of eight, padded with zeros, and
columns in powers of two. The shape of a document's products then depends only on its own length,
and its vector neither on its neighbors nor on the other pools requested.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from actvec.pooling import Pool, PoolTokens

GROUP = 8
_LEAST = 16

# Longer documents run for so long that it is cheap to compute their weights each time.
_KEPT_TOKENS = 2048


@dataclass(frozen=True, eq=False)
class Weights:
    """The matrix that multiplies the last tokens of a document.

    Attributes:
        block: Float32 `[groups * 8, columns]`. The first row is the mean, which shows whether all
            states are finite; the K pools follow, then zeros.
        pools: K.
        used: How many of the document's last tokens are pooled; later columns are zero.
    """

    block: NDArray[np.float32]
    pools: int
    used: int


def weights_of(pools: tuple[Pool, ...], tokens: PoolTokens) -> Weights:
    """Compute the weights of a document.

    Raises:
        DocumentError: the document does not fit a pool.
    """
    if tokens.used > _KEPT_TOKENS or any(pool.spans for pool in pools):
        return _weights(pools, tokens)
    return _kept(pools, tokens.used, tokens.dropped, tokens.bos)


@lru_cache(maxsize=512)
def _kept(pools: tuple[Pool, ...], used: int, dropped: int, bos: bool) -> Weights:
    return _weights(pools, PoolTokens(used, dropped, bos))


def _weights(pools: tuple[Pool, ...], tokens: PoolTokens) -> Weights:
    rows = -(-(1 + len(pools)) // GROUP) * GROUP
    columns = max(_LEAST, 1 << (tokens.used - 1).bit_length())
    block = np.zeros((rows, columns), dtype=np.float32)
    block[0, : tokens.used] = 1 / tokens.used
    for row, pool in enumerate(pools, 1):
        block[row, : tokens.used] = pool.row(tokens)
    return Weights(block, len(pools), tokens.used)
