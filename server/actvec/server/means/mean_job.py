"""A job that makes a mean: every document counts exactly once, whatever breaks.

Documents of a job are summed in chunks. A chunk is sealed, its last document awaited, its sums
merged into the committed ones and written as a checkpoint, while the next chunk fills. What a
checkpoint says is durable; after a crash nothing else counts.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from actvec.pooling import MeanAccumulator
from actvec.server.errors import (
    DoesNotFitError,
    JobMismatchError,
    JobWaitsError,
    LeftOutError,
    NotFiniteError,
    RequestError,
)
from actvec.server.extractor import EngineLane, Extractor
from actvec.server.means.checkpoint import JobDirectory, Progress
from actvec.server.means.store import MeanStore
from actvec.server.pooler import Pools
from actvec.server.status import status_of
from actvec.server.step import DeviceSums, StepDocument
from actvec.server.tokens import TokenizedDocument
from actvec.v1.means_pb2 import CorpusMean

# Why there is no mean of a job, for those as well who see of the error nothing but its words.
NO_DOCUMENT = "has no document in it"


@dataclass(frozen=True)
class JobSettings:
    """What a job's mean depends on; a job is reopened with the same.

    Attributes:
        job: The job's name.
        canonical: All of it, model included, as canonical JSON.
        record: The beginnings of the mean's record.
        variance: Whether squares are summed.
    """

    job: str
    canonical: str
    record: CorpusMean
    variance: bool


@dataclass(frozen=True)
class JobDocument:
    """The next document of a job, as its client numbered it.

    Attributes:
        sequence: Its number.
        id: The client's name for it.
        text_sha256: Of its text's UTF-8; 32 bytes.
        content: Its tokens, or why it is left out.
    """

    sequence: int
    id: str
    text_sha256: bytes
    content: TokenizedDocument | RequestError | LeftOutError


@dataclass(eq=False)
class _Chunk:
    """Documents between two checkpoints."""

    sums: DeviceSums
    progress: Progress
    documents: int = 0
    unfinished: int = 0
    failure: Exception | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def settled(self) -> None:
        """Wait until every document of the chunk is in its sums, or skipped."""
        while self.unfinished:
            self.changed.clear()
            await self.changed.wait()


class MeanJob:
    """A job while a client holds it.

    Attributes:
        next_sequence: Documents that were taken since the job began: the next one's number.
        added: Documents in the sums, durable or not.
        tokens: Their tokens.
        skipped: Documents left out, durably or not.
        last_message: When the client last sent something, or a document of it was done, in seconds
            of the monotonic clock.
    """

    def __init__(
        self,
        settings: JobSettings,
        directory: JobDirectory,
        extractor: Extractor,
        committed: Progress,
    ) -> None:
        self.settings = settings
        self.next_sequence = committed.next_sequence
        self._corpus = committed.corpus
        self.added = committed.accumulator.documents
        self.tokens = committed.accumulator.tokens
        self.skipped = sum(entry.documents for entry in committed.skipped.values())
        self.last_message = time.monotonic()
        self._directory = directory
        self._extractor = extractor
        self._committed = committed
        self._lane: EngineLane = extractor.lane()
        self._window = asyncio.Semaphore(extractor.limits.stream_documents)
        self._chunk = self._new_chunk()
        self._committing = asyncio.Lock()
        self._failure: Exception | None = None

    @property
    def committed(self) -> Progress:
        """What is durable."""
        return self._committed

    @property
    def failed(self) -> bool:
        """Whether a commit failed: nothing of this hold becomes durable any more."""
        return self._failure is not None

    @property
    def uncommitted(self) -> int:
        """Documents that were taken since the last chunk was sealed."""
        return self._chunk.documents

    async def add(self, document: JobDocument) -> None:
        """Take the next document; waits where too many are on their way.

        Raises:
            RequestError: its number is not the next one.
            DrainingError: the server is shutting down.
        """
        await self._window.acquire()
        chunk = self._chunk
        if document.sequence != self.next_sequence:
            self._window.release()
            raise RequestError(
                "documents.sequence",
                f"is {document.sequence}; the next document is {self.next_sequence}",
            )
        chunk.unfinished += 1
        content = document.content
        tokens = 0 if isinstance(content, Exception) else len(content.ids)
        done = self._on_done(chunk, document.id, document.sequence, tokens)
        try:
            if isinstance(content, Exception):
                done(content)
            else:
                await self._lane.put(StepDocument(content.ids, sums=chunk.sums), tokens, done)
        except BaseException:
            # Not queued: the client will send it again.
            chunk.unfinished -= 1
            chunk.changed.set()
            self._window.release()
            raise
        named = hashlib.sha256(document.id.encode()).digest() + document.text_sha256
        self._corpus = hashlib.sha256(self._corpus + named).digest()
        self.next_sequence += 1
        chunk.documents += 1
        chunk.progress.next_sequence = self.next_sequence
        chunk.progress.corpus = self._corpus

    async def commit(self) -> Progress:
        """Make everything durable that was taken so far.

        Goes on where the caller is cancelled: half a commit would lose the documents of its chunk.

        Raises:
            StorageError: the disk is full or cannot be written.
            JobWaitsError: there was no memory for a document; what was taken since the last commit
                is void.
            Exception: the engine failed; likewise.
        """
        return await asyncio.shield(asyncio.create_task(self._commit()))

    async def _commit(self) -> Progress:
        async with self._committing:
            # What follows a failed chunk is void too: its numbers have a gap before them.
            if self._failure is not None:
                raise self._failure
            chunk = self._chunk
            if not chunk.documents:
                return self._committed
            self._chunk = self._new_chunk()
            try:
                await chunk.settled()
                if chunk.failure is not None:
                    raise chunk.failure
                chunk.progress.accumulator = await asyncio.to_thread(chunk.sums.take)
                self._committed.merge(chunk.progress)
                await asyncio.to_thread(self._directory.save, self._committed)
            except Exception as error:
                self._failure = error
                # gRPC keeps the error for a while, and with its traceback this chunk.
                del chunk.sums
                raise
            return self._committed

    async def finish(self, store: MeanStore) -> CorpusMean:
        """Commit, and store the mean.

        Raises:
            JobMismatchError: no document is in the mean.
            StorageError: the disk is full or cannot be written.
        """
        committed = await self.commit()
        if not committed.accumulator.documents:
            raise JobMismatchError(
                f"job {self.settings.job} {NO_DOCUMENT}, {self.skipped} were skipped: "
                "there is nothing to average"
            )
        record = CorpusMean()
        record.CopyFrom(self.settings.record)
        record.corpus_sha256 = committed.corpus.hex()
        for reason, entry in committed.skipped.items():
            record.skipped.add(reason=reason, **vars(entry))
        stored = await asyncio.to_thread(store.save, committed.accumulator, record)
        await asyncio.to_thread(self._directory.finish, committed.next_sequence, stored.id)
        return stored

    def close(self) -> None:
        """Compute nothing more for this job, and keep no memory for it."""
        self._lane.close()
        del self._chunk.sums

    def _new_chunk(self) -> _Chunk:
        card, variance = self._extractor.card, self.settings.variance
        longest = self._extractor.max_tokens
        sums = DeviceSums(card.d_model, card.device, variance=variance, longest=longest)
        empty = MeanAccumulator(card.d_model, variance=variance)
        return _Chunk(sums, Progress(empty, self.next_sequence, self._corpus))

    def _on_done(
        self, chunk: _Chunk, document: str, number: int, tokens: int
    ) -> Callable[[Pools | Exception], None]:
        def done(outcome: Pools | Exception) -> None:
            # A client that the server does not come to read is not silent.
            self.last_message = time.monotonic()
            if isinstance(outcome, RequestError | NotFiniteError | LeftOutError):
                reason = getattr(outcome, "reason", None) or status_of(outcome).code.name
                chunk.progress.skip(reason, str(outcome), document)
                self.skipped += 1
            elif isinstance(outcome, DoesNotFitError):
                # It did when the server started: what is short now, other jobs may give back.
                chunk.failure = JobWaitsError(document, number, tokens)
            elif isinstance(outcome, Exception):
                chunk.failure = outcome
            else:
                self.added += 1
                self.tokens += tokens
            chunk.unfinished -= 1
            chunk.changed.set()
            self._window.release()

        return done
