"""A job that computes a mean: every document counts exactly once, whatever breaks.

A job sums its documents in chunks. To commit, it seals the chunk, waits for its last document,
merges its sums into the committed ones and writes a checkpoint, while the next chunk fills. A
checkpoint is durable; after a crash nothing else counts.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from actvec.server.engine.pools import Pools
from actvec.server.engine.step import EngineSums
from actvec.server.errors import (
    DoesNotFitError,
    InputError,
    JobMismatchError,
    JobWaitsError,
    LeftOutError,
    NotFiniteError,
    SumsLostError,
)
from actvec.server.extraction.extractor import EngineLane, Extractor
from actvec.server.jobs.checkpoint import JobDirectory, JobState
from actvec.server.jobs.settings import JobSettings
from actvec.server.means.record import MeanRecord
from actvec.server.means.store import MeanStore
from actvec.server.model.text.tokenized import TokenizedDocument


@dataclass(frozen=True)
class JobDocument:
    """The next document of a job, as its client numbered it.

    Attributes:
        sequence: Its number.
        id: The client's id of it.
        text_sha256: SHA-256 of its text's UTF-8, 32 bytes.
        content: Its tokens, or the reason to skip it.
    """

    sequence: int
    id: str
    text_sha256: bytes
    content: TokenizedDocument | InputError | LeftOutError


@dataclass(eq=False)
class _Chunk:
    """Documents between two checkpoints.

    Attributes:
        engines_lost: How many engines were lost before; the next one takes sums along.
    """

    sums: EngineSums
    progress: JobState
    engines_lost: int
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
        next_sequence: Number of documents taken since the job started, and the number of the next.
        added: Documents in the sums, durable or not.
        tokens: Their tokens.
        skipped: Skipped documents, durable or not.
        last_message: When the client last sent something, or a document of it finished, in seconds
            of the monotonic clock.
    """

    def __init__(
        self,
        settings: JobSettings,
        directory: JobDirectory,
        extractor: Extractor,
        committed: JobState,
    ) -> None:
        self.settings = settings
        self.next_sequence = committed.next_sequence
        self._corpus = committed.corpus
        self.added = committed.accumulator.documents
        self.tokens = committed.accumulator.tokens
        self.skipped = sum(entry.documents for entry in committed.skipped)
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
    def committed(self) -> JobState:
        """The durable state."""
        return self._committed

    @property
    def commit_seconds(self) -> float:
        """Seconds between two commits."""
        seconds = self._extractor.limits.commit_seconds
        return self.settings.commit_seconds(self._committed, seconds)

    @property
    def failed(self) -> bool:
        """Whether a commit failed: nothing more becomes durable while this client holds the job."""
        return self._failure is not None

    @property
    def busy(self) -> bool:
        """Whether documents are taken and not durable yet."""
        return self.next_sequence > self._committed.next_sequence

    @property
    def uncommitted(self) -> int:
        """Number of documents taken since the last chunk was sealed."""
        return self._chunk.documents

    async def add(self, document: JobDocument) -> None:
        """Take the next document; waits while too many are in progress.

        Raises:
            InputError: its number is not the next one.
            DrainingError: the server is shutting down.
        """
        await self._window.acquire()
        chunk = self._chunk
        if document.sequence != self.next_sequence:
            self._window.release()
            raise InputError(
                "sequence",
                f"is {document.sequence}; the next document is {self.next_sequence}",
            )
        chunk.unfinished += 1
        content = document.content
        if isinstance(content, Exception):
            self._skip(chunk, document.id, content)
            self._settle(chunk)
        else:
            tokens = len(content.ids)
            done = self._on_done(chunk, document.id, document.sequence, tokens)
            try:
                step = self.settings.step_document(content, chunk.sums)
                await self._lane.put(step, tokens, done)
            except BaseException:
                # Not queued: the client will send it again.
                self._settle(chunk)
                raise
        named = hashlib.sha256(document.id.encode()).digest() + document.text_sha256
        self._corpus = hashlib.sha256(self._corpus + named).digest()
        self.next_sequence += 1
        chunk.documents += 1
        chunk.progress.next_sequence = self.next_sequence
        chunk.progress.corpus = self._corpus

    async def commit(self) -> JobState:
        """Make everything taken so far durable.

        Continues if the caller is cancelled: half a commit would lose the documents of its chunk.

        Raises:
            StorageError: the disk is full or cannot be written.
            JobWaitsError: there was no memory for a document; documents since the last commit are
                void.
            SumsLostError: a device was lost with its sums; documents since the last commit are
                void.
            Exception: the engine failed; documents since the last commit are void.
        """
        return await asyncio.shield(asyncio.create_task(self._commit()))

    async def _commit(self) -> JobState:
        async with self._committing:
            # Chunks after a failed one are void too: their numbers have a gap before them.
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
                if chunk.engines_lost != self._extractor.engines_lost:
                    raise SumsLostError
                empty = self.settings.empty()
                chunk.progress.accumulator = await asyncio.to_thread(chunk.sums.take, empty)
                self._committed.merge(chunk.progress)
                await asyncio.to_thread(self._directory.save, self._committed)
            except Exception as error:
                self._failure = error
                # gRPC keeps the error for a while, and its traceback keeps this chunk.
                del chunk.sums
                raise
            return self._committed

    async def finish(self, store: MeanStore) -> MeanRecord:
        """Commit, and store the mean.

        Raises:
            JobMismatchError: the mean has no document.
            StorageError: the disk is full or cannot be written.
        """
        committed = await self.commit()
        if not committed.accumulator.documents:
            raise JobMismatchError(
                f"job {self.settings.job} has no documents, so there is nothing to average"
                f"{committed.first_reason()}"
            )
        record = self.settings.record_of(committed)
        stored = await asyncio.to_thread(store.save, committed.accumulator, record)
        await asyncio.to_thread(self._directory.finish, committed.next_sequence, stored.id)
        return stored

    def close(self) -> None:
        """Stop computing for this job, and free its memory."""
        self._lane.close()
        del self._chunk.sums

    def _new_chunk(self) -> _Chunk:
        make = partial(self.settings.device_sums, longest=self._extractor.max_tokens)
        state = JobState(self.settings.empty(), self.next_sequence, self._corpus)
        return _Chunk(EngineSums(make), state, self._extractor.engines_lost)

    def _on_done(
        self, chunk: _Chunk, document: str, number: int, tokens: int
    ) -> Callable[[Pools | Exception], None]:
        def done(outcome: Pools | Exception) -> None:
            if isinstance(outcome, InputError | NotFiniteError):
                self._skip(chunk, document, outcome)
            elif isinstance(outcome, DoesNotFitError):
                # It did fit when the server started: other jobs may give back the memory.
                chunk.failure = JobWaitsError(document, number, tokens)
            elif isinstance(outcome, Exception):
                chunk.failure = outcome
            else:
                self.added += 1
                self.tokens += tokens
            self._settle(chunk)

        return done

    def _skip(
        self, chunk: _Chunk, document: str, error: InputError | NotFiniteError | LeftOutError
    ) -> None:
        chunk.progress.skip(error.code, str(error), document)
        self.skipped += 1

    def _settle(self, chunk: _Chunk) -> None:
        """One document of a chunk is in its sums, skipped, or not taken after all."""
        # While the server is too busy to read from a client, the client is not silent.
        self.last_message = time.monotonic()
        chunk.unfinished -= 1
        chunk.changed.set()
        self._window.release()
