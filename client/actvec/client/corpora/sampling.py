"""Sampling by hashes: only the seed and the data decide.

A fetch reads a dataset shard by shard, in the order of `sha256(seed, shard)`, until enough
documents are accepted (the candidates) or the dataset ends. The sample is the candidates with the
smallest `sha256(seed, text)`, smallest first: every candidate is equally likely, and the first
lines of a sample are a sample too.

The shuffle of the `datasets` package is no substitute: it loses its buffer on a resume, and its
order depends on the version of the package. A resumed fetch, or one next year, would give another
file.
"""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass

# Candidates per document of the sample, by default.
_CANDIDATES = 4


@dataclass(frozen=True)
class Sample:
    """The number of documents to sample, and the seed.

    Attributes:
        documents: Number of documents; None for every accepted one, in the dataset's order.
        seed: Determines the order of the shards and the choice among candidates.
        candidates: Number of accepted documents to choose from; None for four times `documents`.
            More come from more places of the dataset, and take longer to read.

    Raises:
        ValueError: a number is below 1, or there are fewer candidates than documents.
    """

    documents: int | None = None
    seed: int = 0
    candidates: int | None = None

    def __post_init__(self) -> None:
        if self.documents is not None and self.documents < 1:
            raise ValueError(f"a sample has 1 document or more, not {self.documents}")
        if self.candidates is not None and (
            self.documents is None or self.candidates < self.documents
        ):
            raise ValueError(
                f"{self.candidates} candidates for {self.documents or 'all'} documents: give at"
                " least as many candidates as documents, or none"
            )

    @property
    def wanted(self) -> int | None:
        """Number of accepted documents at which to stop; None to read the whole dataset."""
        if self.documents is None:
            return None
        return self.candidates or _CANDIDATES * self.documents


def shard_order(sample: Sample, shards: int) -> list[int]:
    """The order in which to read the shards."""
    order = range(shards)
    if sample.documents is None:
        return list(order)
    return sorted(order, key=lambda shard: _rank(sample.seed, b"%d" % shard))


def draw(sample: Sample, candidates: Iterable[tuple[bytes, int]]) -> list[int]:
    """Choose among candidates, in the order of the sample.

    Args:
        sample: The number of documents and the seed.
        candidates: The digest of the text and a number per candidate.

    Returns:
        The numbers of the chosen ones.
    """
    if sample.documents is None:
        return [number for _, number in candidates]
    ranked = ((_rank(sample.seed, digest), number) for digest, number in candidates)
    return [number for _, number in heapq.nsmallest(sample.documents, ranked)]


def _rank(seed: int, value: bytes) -> bytes:
    return hashlib.sha256(b"%d:" % seed + value).digest()
