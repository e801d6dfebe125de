"""From the server's records of means to the contract's messages."""

from collections.abc import Iterable
from typing import Any

from actvec.server.jobs.checkpoint import FinishedJob, JobState
from actvec.server.means.record import MeanRecord, SkippedDocuments
from actvec.server.service.messages import stamp_message, truncation_message
from actvec.v1 import means_pb2


def mean_message(record: MeanRecord) -> means_pb2.CorpusMean:
    """Encode the record of a stored mean, whose fields have the message's names."""
    encoded: dict[str, Any] = {
        "model": record.model and stamp_message(record.model),
        "truncation": truncation_message(record.truncation),
        "skipped": _skipped(record.skipped),
    }
    return means_pb2.CorpusMean(**vars(record) | encoded)


def commit_message(progress: JobState) -> means_pb2.CorpusMeanCommit:
    """Encode the durable state of a job."""
    return means_pb2.CorpusMeanCommit(
        next_sequence=progress.next_sequence,
        documents=progress.accumulator.documents,
        tokens=progress.accumulator.tokens,
        skipped=_skipped(progress.skipped),
        corpus_sha256=progress.corpus,
    )


def last_commit_message(job: FinishedJob, record: MeanRecord) -> means_pb2.CorpusMeanCommit:
    """Encode the last commit of a finished job from its mean's record."""
    return means_pb2.CorpusMeanCommit(
        next_sequence=job.documents,
        documents=record.documents,
        tokens=record.tokens,
        skipped=_skipped(record.skipped),
        corpus_sha256=bytes.fromhex(record.corpus_sha256),
    )


def _skipped(skipped: Iterable[SkippedDocuments]) -> list[means_pb2.SkippedDocuments]:
    return [means_pb2.SkippedDocuments(**vars(entry)) for entry in skipped]
