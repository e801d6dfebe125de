"""The identity of centring: raw minus centred is the pooled mean, whatever the document says."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actvec.pooling.mean import pooled_mean
from actvec.pooling.modes import MODES


@dataclass(frozen=True)
class PoolIdentity:
    """How well the identity holds for one pool of one document.

    Attributes:
        pool: The pool's name.
        cosine: Cosine between raw - centred and the pooled mean; 1 where the identity holds.
        error: L2 norm of their difference.
        difference: L2 norm of raw - centred.
        predicted: L2 norm of the pooled mean.
    """

    pool: str
    cosine: float
    error: float
    difference: float
    predicted: float

    @property
    def relative_error(self) -> float:
        """`error` as a fraction of `predicted`."""
        # Of no prediction, NaN is a difference too.
        return self.error / self.predicted if self.predicted else float(self.error != 0)


def check_identity(
    mode: str,
    raw: NDArray[np.floating],
    centred: NDArray[np.floating],
    mean: NDArray[np.floating],
    tokens: int,
) -> list[PoolIdentity]:
    """Hold `raw - centred` to the pooled mean, pool by pool, in float64.

    Args:
        mode: A key of `MODES`.
        raw: The raw vector `[K * D]`.
        centred: The centred vector `[K * D]`.
        mean: The corpus mean `[N, D]`, by distance from the end.
        tokens: Tokens that were pooled, at most N.

    Raises:
        ValueError: the shapes do not fit together.
    """
    pools = MODES[mode]
    if not raw.shape == centred.shape == (len(pools) * mean.shape[1],):
        raise ValueError(
            f"vectors of mode {mode} by a mean of width {mean.shape[1]} have "
            f"{len(pools) * mean.shape[1]} numbers, not {raw.shape} and {centred.shape}"
        )
    differences = (raw.astype(np.float64) - centred.astype(np.float64)).reshape(len(pools), -1)
    predictions = pooled_mean(mode, mean, tokens).astype(np.float64).reshape(len(pools), -1)
    return [
        _check(pool.name, difference, prediction)
        for pool, difference, prediction in zip(pools, differences, predictions, strict=True)
    ]


def _check(
    pool: str, difference: NDArray[np.float64], prediction: NDArray[np.float64]
) -> PoolIdentity:
    norms = float(np.linalg.norm(difference)), float(np.linalg.norm(prediction))
    product = norms[0] * norms[1]
    cosine = float(difference @ prediction) / product if product else float(norms[0] == norms[1])
    return PoolIdentity(pool, cosine, float(np.linalg.norm(difference - prediction)), *norms)
