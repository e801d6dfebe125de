"""How a seed picks documents: by hashes, so that nothing but the seed and the data decides.

A dataset is read shard by shard, in the order of `sha256(seed, shard)`, until so many documents
(the candidates) were accepted or there are no more. The sample is the candidates with the smallest
`sha256(seed, text)`, smallest first: of the candidates every document is as likely as every other,
and the first lines of a sample are a sample too.
"""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass

# Candidates for each document of the sample, where nothing else is said.
_CANDIDATES = 4


@dataclass(frozen=True)
class Sample:
    """How many documents are wanted, and which.

    Attributes:
        documents: How many; None for every one that is accepted, in the dataset's order.
        seed: Decides the order of the shards, and which candidates are taken.
        candidates: Accepted documents that are read to take them from; None for four times
            `documents`. More come from more places of the dataset, and take longer to read.

    Raises:
        ValueError: a number below 1, or fewer candidates than documents.
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
                f"{self.candidates} candidates for {self.documents or 'all'} documents: give as"
                " many as documents or more, or none"
            )

    @property
    def wanted(self) -> int | None:
        """Accepted documents after which reading stops; None for the end of the dataset."""
        if self.documents is None:
            return None
        return self.candidates or _CANDIDATES * self.documents


def shard_order(sample: Sample, shards: int) -> list[int]:
    """The shards in the order in which they are read."""
    order = range(shards)
    if sample.documents is None:
        return list(order)
    return sorted(order, key=lambda shard: _rank(sample.seed, b"%d" % shard))


def draw(sample: Sample, candidates: Iterable[tuple[bytes, int]]) -> list[int]:
    """Which candidates are taken, in the order of the sample.

    Args:
        sample: How many, and by which seed.
        candidates: A digest of the text and a number for each.

    Returns:
        The numbers.
    """
    if sample.documents is None:
        return [number for _, number in candidates]
    ranked = ((_rank(sample.seed, digest), number) for digest, number in candidates)
    return [number for _, number in heapq.nsmallest(sample.documents, ranked)]


def _rank(seed: int, value: bytes) -> bytes:
    return hashlib.sha256(b"%d:" % seed + value).digest()
