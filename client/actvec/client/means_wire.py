"""Between the messages about means and this library's records; nothing else knows both."""

import hashlib
from collections.abc import Sequence
from datetime import UTC

from actvec.client.errors import ProtocolError
from actvec.client.means import CorpusMean, MeanFile, MeanModel, MeanProgress, MeanSettings, Skipped
from actvec.client.vectors import Document, Failure
from actvec.client.wire import TRUNCATION_NAMES, TRUNCATIONS
from actvec.v1 import means_pb2

# `CorpusMeanCommit.corpus_sha256` of no documents.
EMPTY_CORPUS = bytes(32)

# Bytes of UTF-8 that the contract takes of a skip's message.
_SKIP_MESSAGE_BYTES = 1024

# Bytes of a file in one message.
_CHUNK_BYTES = 1 << 20


def encode_job(settings: MeanSettings, holder: str) -> means_pb2.CorpusMeanJob:
    """The message that opens a job, whose mean a `finish` message finishes."""
    return means_pb2.CorpusMeanJob(
        job=settings.job,
        name=settings.name,
        truncation=TRUNCATIONS[settings.truncation],
        prepend_bos=settings.prepend_bos,
        variance=settings.variance,
        take_over=settings.take_over,
        holder=holder,
        explicit_finish=True,
    )


def encode_skip(failure: Failure, sequence: int, text: str | None) -> means_pb2.CorpusMeanSkip:
    """The message for a document that cannot be sent; `text` where there is one."""
    message = failure.message.encode("utf-8", "replace")[:_SKIP_MESSAGE_BYTES]
    return means_pb2.CorpusMeanSkip(
        sequence=sequence,
        id=_sendable(failure.id),
        reason=failure.code,
        message=message.decode("utf-8", "ignore"),
        text_sha256=b"" if text is None else _sha256(text),
    )


def name_corpus(before: bytes, item: Document | Failure) -> bytes:
    """`CorpusMeanCommit.corpus_sha256` with one more document, 32 bytes."""
    text = item.text if isinstance(item, Document) else ""
    return hashlib.sha256(before + _sha256(_sendable(item.id)) + _sha256(text)).digest()


def decode_mean(record: means_pb2.CorpusMean) -> CorpusMean:
    """A record.

    Raises:
        ProtocolError: it was made at a time that no calendar has.
    """
    model = record.model
    try:
        created_at = record.created_at.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ProtocolError(f"mean {record.id!a} has no time of its making: {error}") from error
    return CorpusMean(
        id=record.id,
        name=record.name,
        sha256=record.sha256,
        size_bytes=record.size_bytes,
        model=MeanModel(
            model=model.model,
            revision=model.revision,
            tokenizer_sha256=model.tokenizer_sha256,
            dtype=model.dtype,
            layers=tuple(model.layers),
            hook=model.hook,
        )
        if record.HasField("model")
        else None,
        prepend_bos=record.prepend_bos,
        truncation=TRUNCATION_NAMES.get(record.truncation, "error"),
        documents=record.documents,
        tokens=record.tokens,
        skipped=tuple(
            Skipped(entry.reason, entry.documents, entry.first_message, entry.first_id)
            for entry in record.skipped
        ),
        d_model=record.d_model,
        max_tokens=record.max_tokens,
        has_counts=record.has_counts,
        has_variance=record.has_variance,
        created_at=created_at,
        actvec_version=record.actvec_version,
        corpus_sha256=record.corpus_sha256,
    )


def decode_commit(commit: means_pb2.CorpusMeanCommit, rate: float) -> MeanProgress:
    """What is durable, as progress; `rate` is the last known, in tokens a second."""
    return MeanProgress(
        documents=commit.documents,
        tokens=commit.tokens,
        skipped=sum(entry.documents for entry in commit.skipped),
        committed=commit.next_sequence,
        tokens_per_second=rate,
    )


def decode_progress(progress: means_pb2.CorpusMeanProgress, committed: int) -> MeanProgress:
    """How a job is going, of which `committed` documents are durable."""
    return MeanProgress(
        documents=progress.documents,
        tokens=progress.tokens,
        skipped=progress.skipped,
        committed=committed,
        tokens_per_second=progress.tokens_per_second,
    )


def encode_file(content: bytes, name: str) -> list[means_pb2.UploadCorpusMeanRequest]:
    """A mean's file in pieces."""
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
    """A mean's file from its pieces.

    Raises:
        ProtocolError: the bytes are not those of the record.
    """
    if not parts or parts[0].WhichOneof("part") != "corpus_mean":
        raise ProtocolError("the server sent a file without its record")
    record = decode_mean(parts[0].corpus_mean)
    content = b"".join(part.chunk for part in parts[1:])
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise ProtocolError(
            f"mean {record.id} arrived as {len(content)} bytes that are not those of its record;"
            " download it again"
        )
    return MeanFile(record, content)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _sendable(document_id: str) -> str:
    return document_id.encode("utf-8", "replace").decode()
