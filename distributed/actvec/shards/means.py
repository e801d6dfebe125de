"""Sums of documents for a corpus mean, computed in this process, each document once."""

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from actvec.client.errors import InvalidArgument
from actvec.client.messages.means import encode_job, name_corpus
from actvec.client.records.settings import MeanSettings
from actvec.client.records.vectors import Document, Failure
from actvec.server.engine.step import DeviceSums, StepDocument
from actvec.server.errors import (
    InputError,
    JobMismatchError,
    NotFiniteError,
)
from actvec.server.jobs.checkpoint import EMPTY_CORPUS, FinishedJob, JobDirectory, JobState
from actvec.server.jobs.registry import load_job
from actvec.server.means.format import encode
from actvec.server.means.record import MeanRecord, SkippedDocuments
from actvec.server.means.store import MeanStore
from actvec.server.service.mean_stream import parse_job
from actvec.shards.contract import content_of
from actvec.shards.host import ModelHost

# The most documents between two commits.
_UNCOMMITTED_DOCUMENTS = 10_000


@dataclass(frozen=True)
class MeanPart:
    """The sums of a part of a corpus.

    Attributes:
        file: The file of the mean of these documents, with exact sums; empty without a usable one.
        skipped: Skipped documents, one entry per reason.
    """

    file: bytes
    skipped: tuple[SkippedDocuments, ...]


class SumMaker:
    """Sums documents' states by distance from the end, as a server's corpus mean job does.

    Args:
        host: The model.
        settings: The client's settings of the job.

    Attributes:
        job: Everything the mean depends on, with the start of its record.

    Raises:
        RequestError: a name is invalid, or BOS is requested and the tokenizer has none.
    """

    def __init__(self, host: ModelHost, settings: MeanSettings) -> None:
        self._host = host
        # Through the contract's message, so that both sides' own code interprets it.
        self.job, self._settings = parse_job(
            encode_job(settings, ""), host.card, has_bos=host.has_bos, version=host.version
        )

    def __call__(
        self, documents: Iterable[Document | Failure], before: JobState | None = None
    ) -> JobState:
        """Sum documents, and nothing else.

        Args:
            documents: The documents; one that cannot be read or computed is skipped and counted.
            before: The end of the documents before these; None for the first ones.

        Raises:
            StartupError: a step of the longest document does not fit memory.
            DoesNotFitError: a document does not fit memory.
            EngineLostError: the engine is lost; the process must end.
            Exception: the engine failed, or whatever the iterable raises. Nothing was summed.
        """
        sums = self.job.device_sums(self._host.card.device, self._host.card.context)
        made = JobState(
            self.job.empty(),
            before.next_sequence if before else 0,
            before.corpus if before else EMPTY_CORPUS,
        )
        for document_id, outcome in self._host.steps(self._prepared(documents, sums, made)):
            if isinstance(outcome, InputError | NotFiniteError):
                made.skip(outcome.code, str(outcome), document_id)
            elif isinstance(outcome, Exception):
                raise outcome
        made.accumulator = sums.take()
        return made

    def part(self, documents: Iterable[Document | Failure]) -> MeanPart:
        """Sum documents into a part, which travels to a merger.

        Raises:
            Exception: whatever a call raises.
        """
        made = self(documents)
        # Only the whole has a digest of its documents.
        record = replace(self.job.record_of(made), corpus_sha256="")
        used = made.accumulator.documents
        return MeanPart(encode(made.accumulator, record) if used else b"", made.skipped)

    def _prepared(
        self, documents: Iterable[Document | Failure], sums: DeviceSums, made: JobState
    ) -> Iterator[tuple[str, StepDocument | None]]:
        for item in documents:
            made.corpus = name_corpus(made.corpus, item)
            made.next_sequence += 1
            if isinstance(item, Failure):
                made.skip(item.code, item.message, item.id)
                continue
            try:
                tokens = self._host.read(content_of(item), self._settings)
            except (InvalidArgument, InputError) as error:
                made.skip(error.code, str(error), item.id)
            else:
                yield item.id, self.job.step_document(tokens, sums)


def compute_mean(
    host: ModelHost,
    source: Iterable[Document | Failure],
    settings: MeanSettings,
    directory: JobDirectory,
    store: MeanStore,
    *,
    commit_every: float = 0.0,
) -> MeanRecord:
    """Compute the mean of a source, and count each document once; an existing mean stays.

    Commits sums to the job's directory every few seconds; the same call resumes from there, in any
    process.

    Args:
        host: The model.
        source: The documents, for example a shard of a corpus.
        settings: The settings of the mean.
        directory: The directory of the job.
        store: The store for the mean.
        commit_every: The fewest seconds between two commits, if the host's limit is lower.

    Returns:
        The mean's record. Without a usable document there is no mean; the record then has 0
        documents and lists the skipped ones.

    Raises:
        JobMismatchError: the job started with other settings or other documents.
        JobCorruptError: its files are damaged.
        StorageError: the disk is full or cannot be written.
        SumsTooLargeError: the sums do not fit memory.
        DoesNotFitError: a document does not fit memory.
        EngineLostError: the engine is lost; the process must end.
    """
    maker = SumMaker(host, settings)
    documents = iter(source)
    left = load_job(directory, maker.job, store, [host.card.device], host.card.context)
    if isinstance(left, FinishedJob):
        record = store.find(left.mean, host.card.stamp)
        _skip(documents, settings.job, left.documents, bytes.fromhex(record.corpus_sha256))
        if next(documents, None) is not None:
            raise _other_documents(settings.job, left.documents)
        return record
    _skip(documents, settings.job, left.next_sequence, left.corpus)
    committed, seconds = left, max(host.limits.commit_seconds, commit_every)
    while True:
        made = maker(
            _for_a_while(documents, maker.job.commit_seconds(committed, seconds)), committed
        )
        if made.next_sequence == committed.next_sequence:
            break
        committed.merge(made)
        directory.save(committed)
    record = maker.job.record_of(committed)
    if not committed.accumulator.documents:
        return record
    stored = store.save(committed.accumulator, record)
    directory.finish(committed.next_sequence, stored.id)
    return stored


def _for_a_while(
    documents: Iterator[Document | Failure], seconds: float
) -> Iterator[Document | Failure]:
    """Yield documents until it is time to commit, at least one."""
    ends = time.monotonic() + seconds
    for document in itertools.islice(documents, _UNCOMMITTED_DOCUMENTS):
        yield document
        if time.monotonic() > ends:
            return


def _skip(documents: Iterator[Document | Failure], job: str, committed: int, corpus: bytes) -> None:
    """Draw the documents that a job already has.

    Raises:
        JobMismatchError: they differ.
    """
    seen = EMPTY_CORPUS
    for number in range(committed):
        document = next(documents, None)
        if document is None:
            raise JobMismatchError(
                f"job {job} has {committed} documents already, and this corpus has only {number}: "
                "it is another one, or was cut. Use another job name"
            )
        seen = name_corpus(seen, document)
    if seen != corpus:
        raise _other_documents(job, committed)


def _other_documents(job: str, committed: int) -> JobMismatchError:
    return JobMismatchError(
        f"job {job} has {committed} documents already, and they are not the first {committed} of "
        "this corpus. Use another job name, or the corpus that the job began with"
    )
