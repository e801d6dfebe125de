"""The record of a corpus mean."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

from actvec.server.model.stamp import ModelStamp, Truncation


@dataclass(frozen=True)
class SkippedDocuments:
    """Documents that a job skipped for one reason.

    Attributes:
        reason: The name of a google.rpc code, for example `INVALID_ARGUMENT`.
        documents: How many.
        first_message: The error of the first of them.
        first_id: The id of the first of them.
    """

    reason: str = ""
    documents: int = 0
    first_message: str = ""
    first_id: str = ""


@dataclass(frozen=True)
class MeanRecord:
    """The record of a mean, in the store and in the mean's file.

    A field has its default if it is unknown: a file made elsewhere may have no record. Fields that
    depend on the bytes of the file (id, hash, size) are set in the store's record only.

    Attributes:
        id: The mean's id, derived from its content.
        name: The mean's name.
        sha256: SHA-256 of its safetensors file, in hexadecimal.
        size_bytes: Bytes of that file.
        model: The averaged model's stamp; None if the mean names no model.
        prepend_bos: Whether BOS came first.
        truncation: How documents beyond the context were treated; None if unknown.
        documents: Documents in the mean.
        tokens: Tokens in the mean.
        skipped: Skipped documents, one entry per reason.
        d_model: D, the residual width.
        max_tokens: Number of positions, counted from the end.
        has_counts: Whether the number of documents behind each position is known.
        has_variance: Whether second moments are known.
        created_at: When it was stored, for people; nothing sorts by it.
        actvec_version: The version of actvec that made it.
        corpus_sha256: Digest of its documents in their order, in hexadecimal; empty for a merged
            mean.
        chat_template_sha256: SHA-256 of the model's chat template; empty without one.
        chat_template_kwargs: Arguments of the chat template, as JSON with sorted keys.
        add_generation_prompt: Whether chats ended with the beginning of an answer.
        chat_template_date: The date passed to the template as today's.
    """

    id: str = ""
    name: str = ""
    sha256: str = ""
    size_bytes: int = 0
    model: ModelStamp | None = None
    prepend_bos: bool = False
    truncation: Truncation | None = None
    documents: int = 0
    tokens: int = 0
    skipped: tuple[SkippedDocuments, ...] = ()
    d_model: int = 0
    max_tokens: int = 0
    has_counts: bool = False
    has_variance: bool = False
    created_at: datetime | None = None
    actvec_version: str = ""
    corpus_sha256: str = ""
    chat_template_sha256: str = ""
    chat_template_kwargs: str = ""
    add_generation_prompt: bool = False
    chat_template_date: str = ""

    def of_file(self, content: bytes) -> Self:
        """The store's record of a file, from the mean's own."""
        sha256 = hashlib.sha256(content).hexdigest()
        return replace(
            self, id=mean_id(sha256), sha256=sha256, size_bytes=len(content), created_at=now()
        )


def mean_id(sha256: str) -> str:
    """The id of a mean, from the SHA-256 of its file."""
    return sha256[:16]


def now() -> datetime:
    """The current time, for people: nothing sorts by it."""
    return datetime.now(UTC)


def by_reason(skipped: Iterable[SkippedDocuments]) -> tuple[SkippedDocuments, ...]:
    """Merge entries, one per reason; each keeps its first document."""
    entries: dict[str, SkippedDocuments] = {}
    for entry in skipped:
        known = entries.get(entry.reason, replace(entry, documents=0))
        entries[entry.reason] = replace(known, documents=known.documents + entry.documents)
    return tuple(entries.values())
