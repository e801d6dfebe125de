"""The exact merge of means of disjoint documents."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from actvec.pooling import MeanAccumulator
from actvec.server.errors import MeanMismatchError
from actvec.server.means.format import MOST_DOCUMENTS, MeanTensors
from actvec.server.means.record import MeanRecord, SkippedDocuments, by_reason


class Merge:
    """Adds up means as they come; memory holds one beside the sums.

    Attributes:
        total: The sums; None before the first mean.
        skipped: The skipped documents of all, one entry per reason.
    """

    def __init__(self) -> None:
        self.total: MeanAccumulator | None = None
        self.skipped: tuple[SkippedDocuments, ...] = ()
        self._first = MeanRecord()
        self._corpora: dict[str, str] = {}

    def add(self, record: MeanRecord, tensors: MeanTensors) -> None:
        """Add a mean.

        Raises:
            MeanMismatchError: it does not match the first one, shares documents with an earlier
                one, or lacks exact sums.
        """
        if self.total is None:
            self._first = record
        elif differing := _differing(_settings(self._first), _settings(record)):
            raise MeanMismatchError(
                f"means {self._first.name} and {record.name} differ in {', '.join(differing)}; "
                "only means of the same model, layers and settings merge"
            )
        added = tensors.accumulator
        if added is None:
            raise MeanMismatchError(f"mean {record.name} has no sums and counts to merge")
        # An uploaded mean's record has no digest, but the server that made it wrote one into the
        # file.
        if corpus := record.corpus_sha256 or tensors.record.corpus_sha256:
            if corpus in self._corpora:
                raise MeanMismatchError(
                    f"means {self._corpora[corpus]} and {record.name} have the same documents; a "
                    "merge would count each twice"
                )
            self._corpora[corpus] = record.name
        if self.total is None:
            self.total = added
        else:
            if added.squares is None and self.total.squares is not None:
                self.total = MeanAccumulator.from_sums(self.total.counts, self.total.sums)
            self.total.merge(added)
        if self.total.documents > MOST_DOCUMENTS:
            raise MeanMismatchError(f"a mean has at most {MOST_DOCUMENTS} documents")
        self.skip(record.skipped)

    def skip(self, skipped: Iterable[SkippedDocuments]) -> None:
        """Count further skipped documents."""
        self.skipped = by_reason([*self.skipped, *skipped])

    def record(self, name: str) -> MeanRecord:
        """The start of the merged mean's record: without the fields that its sums determine."""
        return replace(
            self._first,
            name=name,
            skipped=self.skipped,
            id="",
            sha256="",
            size_bytes=0,
            created_at=None,
            corpus_sha256="",
        )


def merged(
    records: Sequence[MeanRecord],
    load: Callable[[MeanRecord], MeanTensors],
    name: str,
) -> tuple[MeanAccumulator, MeanRecord]:
    """Add up means, one loaded at a time; return the sums and the start of their record.

    Args:
        records: The means' records, at least one.
        load: Loads one.
        name: The merged mean's name.

    Raises:
        MeanMismatchError: they do not match, share documents, or lack exact sums.
        Exception: whatever `load` raises.
    """
    merge = Merge()
    for record in records:
        merge.add(record, load(record))
    assert merge.total is not None  # noqa: S101 - there is a mean
    return merge.total, merge.record(name)


def _settings(record: MeanRecord) -> dict[str, Any]:
    """The settings in which means must agree to share a record; of no model, without its own."""
    states = {} if record.model is None else asdict(record.model.states())
    return states | {
        "prepend_bos": record.prepend_bos,
        "truncation": record.truncation,
        "chat_template_kwargs": record.chat_template_kwargs,
        "add_generation_prompt": record.add_generation_prompt,
    }


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of the settings that differ."""
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]
