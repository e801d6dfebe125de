"""From the server's records of means to the contract's messages."""

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from actvec.server.jobs.checkpoint import FinishedJob, JobState
from actvec.server.means.record import MeanRecord, SkippedDocuments
from actvec.server.service.messages import stamp_message, truncation_message
from actvec.v1 import means_pb2


def mean_message(record: MeanRecord) -> means_pb2.CorpusMean:
    """Encode the record of a stored mean."""
    message = means_pb2.CorpusMean(
        id=record.id,
        name=record.name,
        sha256=record.sha256,
        size_bytes=record.size_bytes,
        prepend_bos=record.prepend_bos,
        truncation=truncation_message(record.truncation),
        documents=record.documents,
        tokens=record.tokens,
        skipped=_skipped(record.skipped),
        d_model=record.d_model,
        max_tokens=record.max_tokens,
        has_counts=record.has_counts,
        has_variance=record.has_variance,
        actvec_version=record.actvec_version,
        corpus_sha256=record.corpus_sha256,
        chat_template_sha256=record.chat_template_sha256,
        chat_template_kwargs=record.chat_template_kwargs,
        add_generation_prompt=record.add_generation_prompt,
        chat_template_date=record.chat_template_date,
    )
    if record.model is not None:
        message.model.CopyFrom(stamp_message(record.model))
    if record.created_at is not None:
        created_at = Timestamp()
        created_at.FromDatetime(record.created_at)
        message.created_at.CopyFrom(created_at)
    return message


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
