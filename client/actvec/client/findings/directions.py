"""The difference between the means of two labels: a direction per layer and pool."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from actvec.client.findings.blocks import blocks_of
from actvec.client.findings.labels import two_labels
from actvec.client.findings.separating import (
    Separation,
    class_sums,
    held_out,
    project_on,
    unit_rows,
)
from actvec.client.findings.stamps import check_stamps
from actvec.client.records.stamp import Stamp
from actvec.client.stored.vectors import StoredVectors


@dataclass(frozen=True, eq=False)
class Direction:
    """The mean of the vectors of one label minus the mean of those of another.

    Attributes:
        direction: `[L, K, D]` float32.
        offset: `[L, K]` float64: the score of the point halfway between the means, along the unit
            direction. Scores are measured from it.
        spread: `[2, L, K]` float64: the root mean square distance of the negative and of the
            positive documents to their mean.
        separation: How well held-out documents separate.
        by: The column of the labels.
        positive: The one label.
        negative: The other; `rest` for all others.
        counts: Documents of the one and of the other.
        stamp: What the vectors depend on.
    """

    direction: NDArray[np.float32] = field(repr=False)
    offset: NDArray[np.float64] = field(repr=False)
    spread: NDArray[np.float64] = field(repr=False)
    separation: Separation = field(repr=False)
    by: str
    positive: str
    negative: str
    counts: tuple[int, int]
    stamp: Stamp = field(repr=False)

    @property
    def norm(self) -> NDArray[np.float64]:
        """The length of the direction, `[L, K]`."""
        norms: NDArray[np.float64] = np.linalg.norm(self.direction.astype(np.float64), axis=-1)
        return norms

    @property
    def unit(self) -> NDArray[np.float64]:
        """The direction with length 1, `[L, K, D]`; 0 if the means agree."""
        return unit_rows(self.direction.astype(np.float64))

    @property
    def layer_cosines(self) -> NDArray[np.float64]:
        """The cosine between the directions of each two layers, `[K, L, L]`."""
        cosines: NDArray[np.float64] = np.einsum("lkd,mkd->klm", self.unit, self.unit)
        return cosines


def direction(
    vectors: StoredVectors, by: str, positive: str | None = None, negative: str | None = None
) -> Direction:
    """The direction from one label to another, for each layer and pool.

    Two passes over the vectors; memory does not grow with their number.

    Examples:
        >>> found = direction(load("vectors"), "label", "warm", "curt")
        >>> found.direction.shape, found.separation.auc.round(2)

    Args:
        vectors: From `load`.
        by: The column of the labels. Documents without a label are skipped.
        positive: The label that the direction leads to. Default: of two labels, the later in
            alphabetical order.
        negative: The label that it leads from. Default: all others.

    Raises:
        InvalidArgument: there is no such column or label, or there are not two labels.
        DataLoss: a number is not finite.
    """
    classes = two_labels(vectors.column(by), positive, negative)
    sums = class_sums(vectors, classes)
    negatives, positives = sums.means()
    found = positives - negatives
    return Direction(
        direction=found.astype(np.float32),
        offset=np.einsum("lkd,lkd->lk", (positives + negatives) / 2, unit_rows(found)),
        spread=sums.spread(),
        separation=held_out(vectors, classes, sums),
        by=by,
        positive=classes.positive,
        negative=classes.negative,
        counts=classes.counts,
        stamp=vectors.stamp,
    )


def project(vectors: StoredVectors, found: Direction) -> NDArray[np.float64]:
    """The score of each document, `[N, L, K]`: how far it lies along the direction.

    0 is halfway between the means of the labels; the unit is that of the vectors. Documents that
    the direction was made of score better than new ones.

    Raises:
        FailedPrecondition: the vectors are of another stamp; the message names the fields.
    """
    check_stamps(found.stamp, vectors.stamp, "the direction")
    unit = found.unit
    scores = np.empty((len(vectors), *found.offset.shape))
    for rows, block in blocks_of(vectors):
        scores[rows] = project_on(block, unit) - found.offset
    return scores
