"""How well documents of two labels separate along the difference of their means, held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import InvalidArgument
from actvec.client.findings.blocks import Vectors, blocks_of, shape_of
from actvec.client.findings.labels import TwoLabels, as_text, check_labels, two_labels

# At most so many folds; each has at least two documents of either label.
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Separation:
    """How well two labels separate, for each layer and pool.

    Each document is scored by a direction that was made without it: the documents are divided into
    folds, and those of a fold are projected on the difference of means of all other folds. With
    fewer than 4 documents of a label nothing can be held out, and the figures are NaN.

    Attributes:
        auc: `[L, K]` float64, the chance that a positive document scores higher than a negative one
            of its fold: 0.5 for no separation, 1 for a perfect one.
        d_prime: `[L, K]` float64, the difference of the mean scores in standard deviations.
        folds: How many folds there were; 0 if nothing could be held out.
    """

    auc: NDArray[np.float64]
    d_prime: NDArray[np.float64]
    folds: int


@dataclass(frozen=True, eq=False)
class ClassSums:
    """What a pass over the vectors leaves of them: sums by fold and label.

    Attributes:
        counts: `[F, 2]` documents; the second axis is negative, positive.
        sums: `[F, 2, L, K, D]` float64.
        squares: `[F, 2, L, K]` float64, of their squared norms.
        fold: The fold of each document, int `[N]`; -1 for a document of neither label.
    """

    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    fold: NDArray[np.int64]

    def means(self) -> NDArray[np.float64]:
        """The mean of each label, `[2, L, K, D]`."""
        means: NDArray[np.float64] = _per(self.sums.sum(axis=0), self.counts.sum(axis=0))
        return means

    def spread(self) -> NDArray[np.float64]:
        """The root mean square distance of a label's documents to their mean, `[2, L, K]`."""
        squares = _per(self.squares.sum(axis=0), self.counts.sum(axis=0))
        centers = np.einsum("clkd,clkd->clk", self.means(), self.means())
        spread: NDArray[np.float64] = np.sqrt(np.maximum(squares - centers, 0))
        return spread

    def directions_without(self) -> NDArray[np.float64]:
        """The unit difference of means of all folds but one, `[F, L, K, D]`; 0 if there is none."""
        counts = self.counts.sum(axis=0) - self.counts
        sums = self.sums.sum(axis=0) - self.sums
        means = sums / counts[:, :, None, None, None]
        return unit_rows(means[:, 1] - means[:, 0])


def separation(
    vectors: Vectors,
    labels: Sequence[Any] | NDArray[Any],
    positive: str | None = None,
    negative: str | None = None,
) -> Separation:
    """How well labels separate, for each layer and pool, on documents that were held out.

    Two passes over the vectors; memory does not grow with their number.

    Examples:
        >>> vectors = load("vectors")
        >>> found = separation(vectors, vectors.columns["label"])
        >>> vectors.layers[int(found.auc[:, 0].argmax())]

    Args:
        vectors: N documents, from `load`, or as an array `[N, L, K, D]`.
        labels: A label per document; None to skip a document.
        positive: See `two_labels`. Of more than two labels without a positive one, each is compared
            with the rest, and the figures are the means over the labels.
        negative: See `two_labels`.

    Raises:
        InvalidArgument: there are not two labels, no such label, or not one label per document.
        DataLoss: a number is not finite.
    """
    check_labels(labels, vectors)
    names = sorted({text for text in as_text(labels) if text is not None})
    if positive is None and negative is None and len(names) > 2:
        each = [_separation(vectors, two_labels(labels, name)) for name in names]
        return Separation(
            np.mean([one.auc for one in each], axis=0),
            np.mean([one.d_prime for one in each], axis=0),
            min(one.folds for one in each),
        )
    return _separation(vectors, two_labels(labels, positive, negative))


def class_sums(vectors: Vectors, classes: TwoLabels) -> ClassSums:
    """The sums of two labels, fold by fold: one pass."""
    fold = _folds(classes)
    folds = int(fold.max()) + 1
    shape = shape_of(vectors)
    counts = np.zeros((folds, 2), np.int64)
    sums = np.zeros((folds, 2, *shape))
    squares = np.zeros((folds, 2, *shape[:2]))
    for rows, block in blocks_of(vectors):
        norms = np.einsum("nlkd,nlkd->nlk", block, block, dtype=np.float64)
        for number in range(folds):
            for side, of_class in enumerate((classes.is_negative, classes.is_positive)):
                chosen = (fold[rows] == number) & of_class[rows]
                counts[number, side] += chosen.sum()
                sums[number, side] += block[chosen].sum(axis=0, dtype=np.float64)
                squares[number, side] += norms[chosen].sum(axis=0)
    return ClassSums(counts, sums, squares, fold)


def held_out(vectors: Vectors, classes: TwoLabels, sums: ClassSums) -> Separation:
    """The separation of documents by directions that were made without them: one pass."""
    shape = shape_of(vectors)
    folds = len(sums.counts)
    if folds < 2:
        nothing = np.full(shape[:2], np.nan)
        return Separation(nothing, nothing, 0)
    directions = sums.directions_without()
    scores = np.zeros((len(sums.fold), *shape[:2]))
    for rows, block in blocks_of(vectors):
        for number, direction in enumerate(directions):
            chosen = sums.fold[rows] == number
            scores[rows][chosen] = project_on(block[chosen], direction)
    aucs, differences, within = [], [], np.zeros(shape[:2])
    for number in range(folds):
        here = sums.fold == number
        one, other = scores[here & classes.is_positive], scores[here & classes.is_negative]
        aucs.append(auc(one, other))
        differences.append(one.mean(axis=0) - other.mean(axis=0))
        within += one.var(axis=0) * len(one) + other.var(axis=0) * len(other)
    deviation = np.sqrt(within / (sums.counts.sum() - 2 * folds))
    with np.errstate(divide="ignore", invalid="ignore"):
        d_prime = np.mean(differences, axis=0) / deviation
    return Separation(np.mean(aucs, axis=0), d_prime, folds)


def auc(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> NDArray[np.float64]:
    """The area under the ROC curve, of scores `[n, ...]` and `[m, ...]`; ties count half.

    Returns:
        `[...]` float64: the chance that a score of the first is above one of the second.

    Raises:
        InvalidArgument: the scores differ in more than their number.
    """
    shape = positive.shape[1:]
    if shape != negative.shape[1:]:
        raise InvalidArgument(
            f"scores {list(positive.shape)} and {list(negative.shape)} may differ only in their"
            " number, the first axis"
        )
    ones, others = positive.reshape(len(positive), -1), negative.reshape(len(negative), -1)
    found = np.empty(ones.shape[1])
    for at in range(len(found)):
        below = np.sort(others[:, at])
        places = np.searchsorted(below, ones[:, at], "left").astype(np.float64)
        places += np.searchsorted(below, ones[:, at], "right")
        found[at] = places.mean() / (2 * len(below))
    return found.reshape(shape)


def project_on(block: NDArray[np.float32], direction: NDArray[np.floating]) -> NDArray[np.float64]:
    """Products `[n, L, K]` float64 of vectors `[n, L, K, D]` with a direction `[L, K, D]`."""
    products: NDArray[np.float64] = np.einsum("nlkd,lkd->nlk", block, direction, dtype=np.float64)
    return products


def unit_rows(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows `[..., D]` with length 1, in float64; 0 stays 0."""
    rows = rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


def _separation(vectors: Vectors, classes: TwoLabels) -> Separation:
    return held_out(vectors, classes, class_sums(vectors, classes))


def _folds(classes: TwoLabels) -> NDArray[np.int64]:
    """A fold for each document of either label, each with a like share of both; the same always."""
    folds = max(1, min(_FOLDS, min(classes.counts) // 2))
    fold = np.full(len(classes.is_positive), -1)
    draw = np.random.default_rng(0)
    for of_class in (classes.is_positive, classes.is_negative):
        places = np.flatnonzero(of_class)
        fold[draw.permutation(places)] = np.arange(len(places)) % folds
    return fold


def _per(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return sums / counts.reshape(-1, *[1] * (sums.ndim - 1))
