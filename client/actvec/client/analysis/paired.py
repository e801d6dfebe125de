"""The vectors of a few thousand documents, raw and centered side by side."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

from actvec.client.api.client import Client
from actvec.client.records.means import CorpusMean
from actvec.client.records.settings import VectorKeywords, VectorSettings
from actvec.client.records.vectors import Document, Failure, Result, Vector


@dataclass(frozen=True)
class Selection:
    """Documents that fit in memory.

    Attributes:
        documents: The first ones of a source.
        failures: The skipped ones among them, by their numbers in the source.
        left_out: How many more there are.
    """

    documents: tuple[Document, ...]
    failures: tuple[Failure, ...] = ()
    left_out: int = 0

    @property
    def indices(self) -> tuple[int, ...]:
        """The number of each of the documents in the source, from 0: those of no failure."""
        failed = {failure.index for failure in self.failures}
        first = range(len(self.documents) + len(self.failures))
        return tuple(index for index in first if index not in failed)


@dataclass(frozen=True)
class PairedVectors:
    """Vectors of the same documents in the same order, by two calls of the server.

    Attributes:
        raw: Without a corpus mean.
        centered: With the mean subtracted; empty if the settings name none.
        failures: Documents without a vector, by their numbers among the given documents.
        mean: The mean that was subtracted; None if there are no centered vectors.
    """

    raw: tuple[Vector, ...]
    centered: tuple[Vector, ...]
    failures: tuple[Failure, ...]
    mean: CorpusMean | None = None

    @property
    def shortened(self) -> tuple[str, ...]:
        """Ids of documents that are longer than the mean.

        Of these only the last tokens are centered, while the raw vector has them all.
        """
        return tuple(
            raw.id
            for raw, centered in zip(self.raw, self.centered, strict=False)
            if centered.tokens_used < raw.tokens_used
        )


def select(source: Iterable[Document | Failure], limit: int) -> Selection:
    """The first `limit` documents, readable or not; the others are counted, not kept."""
    documents: list[Document] = []
    failures: list[Failure] = []
    left_out = 0
    for index, item in enumerate(source):
        if index >= limit:
            left_out += 1
        elif isinstance(item, Document):
            documents.append(item)
        else:
            failures.append(replace(item, index=index))
    return Selection(tuple(documents), tuple(failures), left_out)


def paired_vectors(
    client: Client,
    documents: Sequence[Document],
    settings: VectorSettings | None = None,
    *,
    on_result: Callable[[Result], None] | None = None,
    **keywords: Unpack[VectorKeywords],
) -> PairedVectors:
    """The vectors of documents, in their order, raw and (with `center`) centered.

    A document that fails in one call is dropped from both.

    Args:
        client: The client of the server that computes them.
        documents: The documents.
        settings: How they become vectors, with a `center` or raw only; or its attributes by name.
        on_result: Called with each result as it arrives: once per document, twice with `center`.
        **keywords: The attributes of `VectorSettings`, instead of `settings`.

    Raises:
        NotFound: there is no such corpus mean.
        ServerUnavailable: no server answers.
        ActvecError: the server refused.
    """
    asked = VectorSettings.of(settings, keywords)

    def collect(center: str | None) -> list[Result]:
        results = []
        for result in client.stream(documents, replace(asked, center=center), ordered=True):
            results.append(result)
            if on_result is not None:
                on_result(result)
        return results

    # First, so that nothing is computed in vain if there is no such mean.
    centered = collect(asked.center) if asked.center is not None else []
    raw = collect(None)
    kept: list[tuple[Vector, Vector]] = []
    failures: list[Failure] = []
    for one, other in zip(raw, centered or raw, strict=True):
        if isinstance(one, Failure):
            failures.append(one)
        elif isinstance(other, Failure):
            failures.append(other)
        else:
            kept.append((one, other))
    pairs = PairedVectors(
        raw=tuple(one for one, _ in kept),
        centered=tuple(other for _, other in kept) if centered else (),
        failures=tuple(failures),
    )
    if not pairs.centered:
        return pairs
    # By the id in the stamp: `latest` may be another one by now.
    return replace(pairs, mean=client.get_mean(pairs.centered[0].stamp.corpus_mean_id))
