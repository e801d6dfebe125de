"""Means of documents that do not overlap, added up exactly."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from actvec.pooling import MeanAccumulator
from actvec.server.errors import MeanMismatchError
from actvec.server.means.format import MOST_DOCUMENTS, MeanTensors
from actvec.v1.means_pb2 import CorpusMean, SkippedDocuments
from actvec.v1.vectors_pb2 import ModelStamp


def merged(
    records: Sequence[CorpusMean],
    load: Callable[[CorpusMean], MeanTensors],
    name: str,
    skipped: Sequence[SkippedDocuments] = (),
) -> tuple[MeanAccumulator, CorpusMean]:
    """The sums of all means, one loaded at a time, and what their record begins with.

    Args:
        records: Of the means.
        load: Loads one.
        name: Names what they come to.
        skipped: Left out beside what their records say.

    Raises:
        MeanMismatchError: they do not fit together, are of the same documents, or have no exact
            sums.
        Exception: what `load` raises.
    """
    first = records[0]
    corpora: dict[str, str] = {}
    total = MeanAccumulator(first.d_model, variance=all(r.has_variance for r in records))
    for record in records:
        if not same_states(record.model, first.model) or _settings(record) != _settings(first):
            raise MeanMismatchError(
                f"means {first.name} and {record.name} are of other models, layers or settings"
            )
        tensors = load(record)
        accumulator = tensors.accumulator
        if accumulator is None:
            raise MeanMismatchError(f"mean {record.name} has no sums and counts to merge")
        # An uploaded mean's record has no digest, but the server that made it wrote one into it.
        if corpus := record.corpus_sha256 or tensors.record.corpus_sha256:
            if corpus in corpora:
                raise MeanMismatchError(
                    f"means {corpora[corpus]} and {record.name} are of the same documents: merged, "
                    "each would count twice"
                )
            corpora[corpus] = record.name
        total.merge(accumulator)
        if total.documents > MOST_DOCUMENTS:
            raise MeanMismatchError(f"a mean is of at most {MOST_DOCUMENTS} documents")
    return total, CorpusMean(
        name=name,
        model=first.model,
        prepend_bos=first.prepend_bos,
        truncation=first.truncation,
        skipped=by_reason(chain(*(record.skipped for record in records), skipped)),
        actvec_version=first.actvec_version,
    )


def same_states(one: ModelStamp, other: ModelStamp) -> bool:
    """Whether two stamps name the same states, up to the rounding of the weights' dtype."""
    return (
        one.model == other.model
        and one.revision == other.revision
        and one.tokenizer_sha256 == other.tokenizer_sha256
        and list(one.layers) == list(other.layers)
        and one.hook == other.hook
    )


def _settings(record: CorpusMean) -> tuple[bool, int]:
    """What a record can say of all of its documents only where their means agree in it."""
    return record.prepend_bos, record.truncation


def by_reason(skipped: Iterable[SkippedDocuments]) -> list[SkippedDocuments]:
    """An entry for each reason, which names the first document of the first that has it."""
    entries: dict[str, SkippedDocuments] = {}
    for entry in skipped:
        known = entries.get(entry.reason)
        if known is None:
            entries[entry.reason] = known = SkippedDocuments()
            known.CopyFrom(entry)
        else:
            known.documents += entry.documents
    return list(entries.values())
