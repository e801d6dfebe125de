"""The vectors of a few thousand documents, raw and centred side by side."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from actvec.client.sync import Client
from actvec.client.vectors import Document, Failure, Mode, Result, Truncation, Vector


@dataclass(frozen=True)
class Selection:
    """Documents that fit in memory.

    Attributes:
        documents: The first ones of a source.
        failures: Those among them that are left out, under their numbers in the source.
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
        centered: With the mean subtracted; empty where none was asked for.
        failures: Documents without a vector, under their numbers among those that were given.
    """

    raw: tuple[Vector, ...]
    centered: tuple[Vector, ...]
    failures: tuple[Failure, ...]

    @property
    def shortened(self) -> tuple[str, ...]:
        """Ids of documents that are longer than the mean.

        Of these only the last tokens are centred, while the raw vector has them all.
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
    *,
    mode: Mode,
    center: str | None = None,
    truncation: Truncation = "error",
    on_result: Callable[[Result], None] | None = None,
) -> PairedVectors:
    """The vectors of documents, in their order, raw and (with `center`) centred.

    A document that fails in either call is left out of both.

    Args:
        client: Of the server that computes them.
        documents: The texts.
        mode: `short` (`[D]` numbers) or `long` (`[4 * D]`).
        center: The corpus mean to subtract: an id, a name or `latest`; None for raw vectors only.
        truncation: What happens to a text over the model's context.
        on_result: Is told each result as it comes: `len(documents)` of them, twice with `center`.

    Raises:
        NotFound: there is no such corpus mean.
        ServerUnavailable: no server answers.
        ActvecError: the server refused.
    """

    def collect(center: str | None) -> list[Result]:
        results = []
        for result in client.stream(
            documents, mode=mode, center=center, truncation=truncation, ordered=True
        ):
            results.append(result)
            if on_result is not None:
                on_result(result)
        return results

    # By id: `latest` may be another one later. First, so that nothing was computed in vain.
    mean = client.get_mean(center).id if center is not None else None
    centered = collect(mean) if mean is not None else []
    raw = collect(None)
    outcomes = list(zip(raw, centered, strict=True)) if centered else [(one,) for one in raw]
    failures = [
        next((result for result in outcome if isinstance(result, Failure)), None)
        for outcome in outcomes
    ]
    return PairedVectors(
        raw=_kept(raw, failures),
        centered=_kept(centered, failures) if centered else (),
        failures=tuple(failure for failure in failures if failure is not None),
    )


def _kept(results: Sequence[Result], failures: Sequence[Failure | None]) -> tuple[Vector, ...]:
    return tuple(
        result
        for result, failure in zip(results, failures, strict=True)
        if failure is None and isinstance(result, Vector)
    )
