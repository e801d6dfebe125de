"""Conversion between this library's records and the messages about means."""

import hashlib
from collections.abc import Sequence
from datetime import UTC

from actvec.client.errors import ProtocolError
from actvec.client.messages.records import record_of
from actvec.client.messages.vectors import TRUNCATION_NAMES, encode_states
from actvec.client.records.means import CorpusMean, MeanFile, MeanModel, MeanProgress, Skipped
from actvec.client.records.settings import MeanSettings
from actvec.client.records.vectors import Document, Failure
from actvec.v1 import means_pb2

# `CorpusMeanCommit.corpus_sha256` of an empty corpus.
EMPTY_CORPUS = bytes(32)

# The contract's limit on a skip's message, in bytes of UTF-8.
_SKIP_MESSAGE_BYTES = 1024

# Bytes of a file per message.
_CHUNK_BYTES = 1 << 20


def encode_job(settings: MeanSettings, holder: str) -> means_pb2.CorpusMeanJob:
    """Encode the message that opens a job; a `finish` message will finish its mean."""
    return means_pb2.CorpusMeanJob(
        job=settings.job,
        name=settings.name,
        variance=settings.variance,
        take_over=settings.take_over,
        holder=holder,
        explicit_finish=True,
        **encode_states(settings),
    )


def encode_skip(
    failure: Failure, sequence: int, document: Document | None
) -> means_pb2.CorpusMeanSkip:
    """Encode the skip of a document that cannot travel; `document` is None if it is unreadable."""
    message = failure.message.encode("utf-8", "replace")[:_SKIP_MESSAGE_BYTES]
    return means_pb2.CorpusMeanSkip(
        sequence=sequence,
        id=_sendable(failure.id),
        reason=failure.code,
        message=message.decode("utf-8", "ignore"),
        text_sha256=b"" if document is None else document.digest(),
    )


def name_corpus(before: bytes, item: Document | Failure) -> bytes:
    """Add one more document to `CorpusMeanCommit.corpus_sha256`, 32 bytes."""
    content = item.digest() if isinstance(item, Document) else hashlib.sha256(b"").digest()
    named = hashlib.sha256(_sendable(item.id).encode()).digest()
    return hashlib.sha256(before + named + content).digest()


def decode_mean(record: means_pb2.CorpusMean) -> CorpusMean:
    """Decode a record.

    Raises:
        ProtocolError: its creation time does not exist.
    """
    try:
        created_at = record.created_at.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ProtocolError(f"mean {record.id!a} has no valid creation time: {error}") from error
    return record_of(
        CorpusMean,
        record,
        model=record_of(MeanModel, record.model) if record.HasField("model") else None,
        truncation=TRUNCATION_NAMES.get(record.truncation, "error"),
        skipped=tuple(record_of(Skipped, entry) for entry in record.skipped),
        created_at=created_at,
    )


def decode_commit(commit: means_pb2.CorpusMeanCommit, rate: float) -> MeanProgress:
    """Decode a commit as progress, at the last known rate in tokens per second."""
    return MeanProgress(
        documents=commit.documents,
        tokens=commit.tokens,
        skipped=sum(entry.documents for entry in commit.skipped),
        committed=commit.next_sequence,
        tokens_per_second=rate,
    )


def decode_progress(progress: means_pb2.CorpusMeanProgress, committed: int) -> MeanProgress:
    """Decode the progress of a job with `committed` durable documents."""
    return record_of(MeanProgress, progress, committed=committed)


def encode_file(content: bytes, name: str) -> list[means_pb2.UploadCorpusMeanRequest]:
    """Split a mean's file into messages."""
    digest = hashlib.sha256(content).hexdigest()
    upload = means_pb2.CorpusMeanUpload(name=name, size_bytes=len(content), sha256=digest)
    chunks = (
        content[start : start + _CHUNK_BYTES] for start in range(0, len(content), _CHUNK_BYTES)
    )
    return [
        means_pb2.UploadCorpusMeanRequest(upload=upload),
        *(means_pb2.UploadCorpusMeanRequest(chunk=chunk) for chunk in chunks),
    ]


def decode_file(parts: Sequence[means_pb2.DownloadCorpusMeanResponse]) -> MeanFile:
    """Join the messages of a mean's file.

    Raises:
        ProtocolError: the bytes do not match the record.
    """
    if not parts or parts[0].WhichOneof("part") != "corpus_mean":
        raise ProtocolError("the server sent a file without its record")
    record = decode_mean(parts[0].corpus_mean)
    content = b"".join(part.chunk for part in parts[1:])
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise ProtocolError(
            f"the {len(content)} bytes of mean {record.id} do not match its record; "
            "download it again"
        )
    return MeanFile(record, content)


def _sendable(document_id: str) -> str:
    return document_id.encode("utf-8", "replace").decode()
