"""How alike documents are: cosines between their vectors, raw and centered, pool by pool."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from actvec.client.analysis.paired import PairedVectors
from actvec.client.findings import Whitening

# The name under which the whole vector of several pools is compared.
ALL_POOLS = "all"


@dataclass(frozen=True, eq=False)
class Similarity:
    """Cosines between all documents in one pool.

    Attributes:
        pool: Its name, after its layer's if layers are separate; or `all` for the whole vector.
        kinds: `[N, N]` float64, NaN if a vector is zero, by the kind of the vectors: `raw`, and
            `centered` and `whitened` if there are any.
    """

    pool: str
    kinds: Mapping[str, NDArray[np.float64]]


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


def similarities(pairs: PairedVectors, whitening: Whitening | None = None) -> list[Similarity]:
    """The cosines between documents for each layer and pool and, of several, for the whole vector.

    Args:
        pairs: The vectors.
        whitening: Fitted to raw vectors, or to vectors centered by the same mean; these are
            whitened.

    Raises:
        ValueError: there is no vector.
        FailedPrecondition: the whitening was fitted to other vectors.
    """
    if not pairs.raw:
        raise ValueError("there is no vector to compare")
    matrices = {
        name: np.stack([vector.matrix for vector in vectors])
        for name, vectors in (("raw", pairs.raw), ("centered", pairs.centered))
        if vectors
    }
    if whitening is not None:
        matrices["whitened"] = _whitened(pairs, whitening)
    names = pairs.raw[0].stamp.row_names
    rows: list[tuple[str, int | slice]] = [(name, at) for at, name in enumerate(names)]
    if len(names) > 1:
        rows.append((ALL_POOLS, slice(None)))
    return [
        Similarity(
            name,
            {kind: cosines(one[:, at].reshape(len(one), -1)) for kind, one in matrices.items()},
        )
        for name, at in rows
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
        matrix: Cosines `[N, N]`; pairs that have none (NaN) are skipped.
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


def _whitened(pairs: PairedVectors, whitening: Whitening) -> NDArray[Any]:
    """Vectors `[N, L * K, M]`."""
    vectors = pairs.centered if whitening.stamp.centered and pairs.centered else pairs.raw
    fitted = whitening.of(vectors[0].stamp)
    whitened = fitted.array(np.stack([vector.array for vector in vectors]))
    return whitened.reshape(len(vectors), -1, whitened.shape[-1])
