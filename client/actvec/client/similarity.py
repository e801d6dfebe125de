"""How alike documents are: cosines between their vectors, raw and centred, pool by pool."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from actvec.client.paired import PairedVectors
from actvec.client.vectors import Vector

# The name under which the whole vector of several pools is compared.
ALL_POOLS = "all"


@dataclass(frozen=True, eq=False)
class Similarity:
    """Cosines between all documents in one pool.

    Attributes:
        pool: Its name, or `all` for the whole vector.
        raw: `[N, N]` float64, NaN where a vector is zero.
        centered: The same of the centred vectors; None where there are none.
    """

    pool: str
    raw: NDArray[np.float64]
    centered: NDArray[np.float64] | None


@dataclass(frozen=True)
class Spread:
    """Cosines between different documents.

    Attributes:
        mean: Their mean.
        lowest: The smallest.
        highest: The largest.
    """

    mean: float
    lowest: float
    highest: float


def cosines(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """The cosine between each two rows of `[N, D]`, in float64: `[N, N]`, NaN for a zero row."""
    rows = vectors.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        rows /= norms
    return np.clip(rows @ rows.T, -1.0, 1.0)


def similarities(pairs: PairedVectors) -> list[Similarity]:
    """The cosines between documents for each pool and, of several pools, for the whole vector.

    Raises:
        ValueError: there is no vector.
    """
    if not pairs.raw:
        raise ValueError("there is no vector to compare")
    names = list(pairs.raw[0].pools)
    if len(names) > 1:
        names.append(ALL_POOLS)
    return [
        Similarity(
            name,
            cosines(_rows(pairs.raw, name)),
            cosines(_rows(pairs.centered, name)) if pairs.centered else None,
        )
        for name in names
    ]


def spread(matrix: NDArray[np.float64]) -> Spread:
    """Mean and extremes of the cosines `[N, N]` between different documents.

    Raises:
        ValueError: there are fewer than two documents.
    """
    if len(matrix) < 2:
        raise ValueError("one document cannot be compared with others")
    values = matrix[np.triu_indices(len(matrix), k=1)]
    return Spread(float(values.mean()), float(values.min()), float(values.max()))


def extreme_pairs(
    matrix: NDArray[np.float64], count: int, which: Literal["closest", "farthest"]
) -> list[tuple[int, int]]:
    """The pairs of documents with the largest or the smallest cosines, the most extreme first.

    Args:
        matrix: Cosines `[N, N]`; pairs that have none (NaN) are left out.
        count: How many, at most.
        which: `closest` or `farthest`.
    """
    rows, columns = np.triu_indices(len(matrix), k=1)
    values = matrix[rows, columns]
    keys = -values if which == "closest" else values
    count = min(count, int(np.isfinite(values).sum()))
    # Ties in the order of the documents: the sort is stable, and NaN sorts last.
    order = np.argsort(keys, kind="stable")[:count]
    return [(int(rows[place]), int(columns[place])) for place in order]


def _rows(vectors: Sequence[Vector], pool: str) -> NDArray[np.float32]:
    return np.stack([v.values if pool == ALL_POOLS else v.pools[pool] for v in vectors])
