"""The identity of centering: raw minus centered is the pooled mean, for every document."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actvec.pooling.mean import pooled_mean
from actvec.pooling.modes import Pools, as_pools
from actvec.pooling.pool import PoolTokens


@dataclass(frozen=True)
class PoolIdentity:
    """How well the identity holds for one pool of one document, at one layer.

    Attributes:
        pool: The pool's name.
        cosine: Cosine between raw - centered and the pooled mean; 1 if the identity holds.
        error: L2 norm of their difference.
        difference: L2 norm of raw - centered.
        predicted: L2 norm of the pooled mean.
        layer: Index of the layer in the mean, from 0; 0 if the mean averages its layers.
    """

    pool: str
    cosine: float
    error: float
    difference: float
    predicted: float
    layer: int = 0

    @property
    def relative_error(self) -> float:
        """`error` as a fraction of `predicted`."""
        # If the prediction is zero, only a zero difference fits; NaN does not.
        return self.error / self.predicted if self.predicted else float(self.error != 0)


def check_identity(
    pools: Pools,
    raw: NDArray[np.floating],
    centered: NDArray[np.floating],
    mean: NDArray[np.floating],
    tokens: int | PoolTokens,
) -> list[PoolIdentity]:
    """Compare `raw - centered` with the pooled mean, per layer and pool, in float64.

        >>> mean = np.ones((8, 512), np.float32)
        >>> raw = np.full(512, 3, np.float32)
        >>> check_identity("short", raw, raw - 1, mean, tokens=5)[0].relative_error < 1e-6
        True

    Args:
        pools: The name of a preset, or a list of pools.
        raw: The raw vector, `[K * D]`, or `[L * K * D]` for separate layers.
        centered: The centered vector, of the same shape.
        mean: The corpus mean by distance from the end, `[N, D]`, or `[L, N, D]` of these layers.
        tokens: Number of pooled tokens, at most N, or a full description of them.

    Raises:
        ValueError: the shapes do not match.
    """
    names = [pool.name for pool in as_pools(pools)]
    width = mean.shape[-1]
    rows = len(names) * (len(mean) if mean.ndim == 3 else 1)
    if not raw.shape == centered.shape == (rows * width,):
        raise ValueError(
            f"vectors of {', '.join(names)} by a mean {list(mean.shape)} have "
            f"{rows * width} numbers, not {raw.shape} and {centered.shape}"
        )
    differences = (raw.astype(np.float64) - centered.astype(np.float64)).reshape(rows, width)
    predictions = pooled_mean(pools, mean, tokens).astype(np.float64).reshape(rows, width)
    return [
        _check(names[row % len(names)], row // len(names), difference, prediction)
        for row, (difference, prediction) in enumerate(zip(differences, predictions, strict=True))
    ]


def _check(
    pool: str, layer: int, difference: NDArray[np.float64], prediction: NDArray[np.float64]
) -> PoolIdentity:
    norms = float(np.linalg.norm(difference)), float(np.linalg.norm(prediction))
    product = norms[0] * norms[1]
    cosine = float(difference @ prediction) / product if product else float(norms[0] == norms[1])
    error = float(np.linalg.norm(difference - prediction))
    return PoolIdentity(pool, cosine, error, *norms, layer)
