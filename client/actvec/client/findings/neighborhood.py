"""The nearest documents by cosine, raw against centered."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import InvalidArgument
from actvec.client.findings.blocks import finite, rows_of
from actvec.client.findings.labels import as_text, check_labels
from actvec.client.findings.separating import unit_rows
from actvec.client.findings.stamps import check_stamps
from actvec.client.findings.whitening import Whitening
from actvec.client.records.vectors import Vector
from actvec.client.stored.vectors import StoredVectors

Found = TypeVar("Found")

View = Callable[[NDArray[np.floating]], NDArray[np.floating]]
"""Vectors `[n, D]` as they are compared: raw, centered or whitened."""

# Documents whose cosines with all others are computed at a time, and of the others at a time.
_QUERIES, _OTHERS = 256, 4096


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest documents of each of n.

    Attributes:
        places: `[n, k]` int64, the rows of the nearest documents, the nearest first.
        cosines: `[n, k]` float64.
    """

    places: NDArray[np.int64]
    cosines: NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How often the nearest neighbor of a document has the same label.

    Documents without a label are skipped: they are nobody's neighbor.

    Attributes:
        share: Of the documents with a label: from 0 to 1.
        chance: The same, if neighbors were drawn at random.
        documents: Documents with a label.
    """

    share: float
    chance: float
    documents: int


@dataclass(frozen=True)
class InPool(Generic[Found]):
    """What was found in one layer and pool.

    Attributes:
        layer: Its name, as in `StoredVectors.layers`.
        pool: Its name.
        kinds: By the kind of the vectors: `raw`, `centered`, `whitened`, if there are any.
    """

    layer: str
    pool: str
    kinds: Mapping[str, Found]


NearestDocuments = tuple[tuple[str, float], ...]
"""Ids and cosines of documents, the nearest first."""


def neighbors(
    vectors: StoredVectors,
    document: str | Vector,
    count: int = 5,
    whitening: Whitening | None = None,
) -> list[InPool[NearestDocuments]]:
    """The nearest documents of one, in each layer and pool, raw and centered.

    Centered means minus the average of these vectors. Vectors that a server centered have one kind,
    `centered`.

    Examples:
        >>> for found in neighbors(load("vectors"), "doc-7"):
        ...     print(found.layer, found.pool, found.kinds["raw"], found.kinds["centered"])

    Args:
        vectors: From `load`.
        document: An id among them; or a vector of another document, as `extract_like` makes it.
        count: How many neighbors, at most.
        whitening: Adds the kind `whitened`.

    Raises:
        InvalidArgument: there is no such document, or no other one.
        DataLoss: a number is not finite.
        FailedPrecondition: the vector or the whitening is of another stamp.
    """
    place = None
    if isinstance(document, Vector):
        check_stamps(vectors.stamp, document.stamp, "the folder")
    else:
        place = vectors.place(document)
        _check_several(len(vectors))
    others = np.delete(np.arange(len(vectors)), [] if place is None else place)

    def find(rows: NDArray[np.float32], view: View, at: tuple[int, int]) -> NearestDocuments:
        query = document.array[at] if isinstance(document, Vector) else rows[place]
        found = nearest_to(view(query[None])[0], view(rows)[others], count)
        pairs = zip(others[found.places[0]], found.cosines[0], strict=True)
        # A zero vector has no cosine, and is nobody's neighbor.
        return tuple(
            (vectors.ids[row], float(cosine)) for row, cosine in pairs if np.isfinite(cosine)
        )

    return _in_each_pool(vectors, whitening, find)


def neighbor_labels(
    vectors: StoredVectors, by: str, whitening: Whitening | None = None
) -> list[InPool[Agreement]]:
    """How often nearest neighbors have the same label, in each layer and pool, raw and centered.

    Args:
        vectors: From `load`.
        by: The column of the labels.
        whitening: Adds the kind `whitened`.

    Raises:
        InvalidArgument: there is no such column, or fewer than two documents have a label.
        FailedPrecondition: the whitening is of another stamp.
    """
    labels = vectors.column(by)
    return _in_each_pool(
        vectors, whitening, lambda rows, view, _: label_agreement(view(rows), labels)
    )


def nearest(rows: NDArray[np.floating], count: int = 5) -> Neighbors:
    """The nearest other documents of each document, by cosine in float64.

    Examples:
        >>> nearest(center(load("vectors").rows(0, 0)), 3).places[:, 0]

    Args:
        rows: A vector per document, `[N, D]`. A zero vector is nobody's neighbor: its cosines are
            `-inf`.
        count: How many neighbors, at most; there are no more than N - 1.

    Raises:
        InvalidArgument: there are fewer than two documents.
        DataLoss: a number is not finite.
    """
    _check_several(len(rows))
    finite(rows)
    found = [
        _nearest(rows[start : start + _QUERIES], rows, min(count, len(rows) - 1), start)
        for start in range(0, len(rows), _QUERIES)
    ]
    return Neighbors(*(np.concatenate(part) for part in zip(*found, strict=True)))


def nearest_to(
    vector: NDArray[np.floating], rows: NDArray[np.floating], count: int = 5
) -> Neighbors:
    """The nearest documents of a vector `[D]` that is none of `rows` `[N, D]`, by cosine."""
    return Neighbors(*_nearest(vector[None], rows, min(count, len(rows)), None))


def center(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors `[N, D]` minus their average: what all documents share is gone."""
    average = rows.mean(axis=0, dtype=np.float64)
    centered: NDArray[np.float32] = (rows - average).astype(np.float32)
    return centered


def label_agreement(
    rows: NDArray[np.floating],
    labels: Sequence[Any] | NDArray[Any],
    near: Neighbors | None = None,
) -> Agreement:
    """How often the nearest neighbor has the same label.

    Args:
        rows: A vector per document, `[N, D]`.
        labels: A label per document; documents with None are skipped, also as neighbors.
        near: What `nearest` finds for `rows`, if it is known. It saves the search if every document
            has a label.

    Raises:
        InvalidArgument: fewer than two documents have a label, or there is not one per vector.
    """
    check_labels(labels, rows)
    texts = as_text(labels)
    labeled = np.array([text is not None for text in texts], bool)
    known = texts[labeled]
    found = near if near is not None and labeled.all() else nearest(rows[labeled], 1)
    counts = Counter(known)
    alike = sum(count * (count - 1) for count in counts.values())
    agree = (known[found.places[:, 0]] == known) & np.isfinite(found.cosines[:, 0])
    return Agreement(
        share=float(np.mean(agree)),
        chance=alike / (len(known) * (len(known) - 1)),
        documents=len(known),
    )


def _check_several(count: int) -> None:
    if count < 2:
        raise InvalidArgument(
            f"neighbors need two documents or more, and the vectors are of {count}"
        )


def _in_each_pool(
    vectors: StoredVectors,
    whitening: Whitening | None,
    find: Callable[[NDArray[np.float32], View, tuple[int, int]], Found],
) -> list[InPool[Found]]:
    fitted = None if whitening is None else whitening.of(vectors.stamp)
    found = []
    for layer, pool in np.ndindex(vectors.shape[:2]):
        rows = rows_of(vectors, layer, pool)
        views: dict[str, View] = {"centered" if vectors.stamp.centered else "raw": lambda one: one}
        if not vectors.stamp.centered:
            average = rows.mean(axis=0, dtype=np.float64)
            views["centered"] = partial(_minus, average=average)
        if fitted is not None:
            views["whitened"] = partial(fitted.rows, layer=layer, pool=pool)
        kinds = {name: find(rows, view, (layer, pool)) for name, view in views.items()}
        found.append(InPool(vectors.layers[layer], vectors.pools[pool], kinds))
    return found


def _minus(rows: NDArray[np.floating], average: NDArray[np.float64]) -> NDArray[np.floating]:
    return rows - average


def _nearest(
    queries: NDArray[np.floating], rows: NDArray[np.floating], count: int, first: int | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest of `rows`; `first` is the row of the first query, which is not its own."""
    units = unit_rows(queries)
    cosines = np.empty((len(queries), len(rows)))
    for start in range(0, len(rows), _OTHERS):
        others = rows[start : start + _OTHERS]
        cosines[:, start : start + _OTHERS] = units @ unit_rows(others).T
        cosines[:, start : start + _OTHERS][:, ~others.any(axis=1)] = -np.inf
    cosines[~queries.any(axis=1)] = -np.inf
    if first is not None:
        own = np.arange(len(queries))
        cosines[own, own + first] = -np.inf
    places = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    # Ties in the order of the documents.
    order = np.lexsort((places, -np.take_along_axis(cosines, places, axis=1)), axis=1)
    places = np.take_along_axis(places, order, axis=1)
    return places, np.take_along_axis(cosines, places, axis=1)
