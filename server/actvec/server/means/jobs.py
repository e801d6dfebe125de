"""Jobs that make a mean: every document counts exactly once, whatever breaks.

Documents of a job are summed in chunks. A chunk is sealed, its last document awaited, its sums
merged into the committed ones and written as a checkpoint, while the next chunk fills. What a
checkpoint says is durable; what it does not say never happened.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from actvec.pooling import MeanAccumulator
from actvec.server.errors import (
    JobHeldError,
    JobMismatchError,
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
        documents: Documents that were added or skipped since the job began, durable or not.
        tokens: Tokens added since the job began, durable or not.
        skipped: Documents skipped since the job began, durable or not.
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
        done = self._on_done(chunk, document.id)
        content = document.content
        try:
            if isinstance(content, Exception):
                done(content)
            else:
                await self._lane.put(
                    StepDocument(content.ids, sums=chunk.sums), len(content.ids), done
                )
                self.tokens += len(content.ids)
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
            OSError: the disk is full or cannot be written.
            Exception: the engine failed; what was taken since the last commit is void.
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
                raise
            return self._committed

    async def finish(self, store: MeanStore) -> CorpusMean:
        """Commit, and store the mean.

        Raises:
            JobMismatchError: no document is in the mean.
            OSError: the disk is full or cannot be written.
        """
        committed = await self.commit()
        if not committed.accumulator.documents:
            raise JobMismatchError(
                f"job {self.settings.job} has no document in it, {self.skipped} were skipped: "
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
        """Compute nothing more for this job."""
        self._lane.close()

    def _new_chunk(self) -> _Chunk:
        card, variance = self._extractor.card, self.settings.variance
        sums = DeviceSums(card.d_model, card.context, card.device, variance=variance)
        empty = MeanAccumulator(card.d_model, variance=variance)
        return _Chunk(sums, Progress(empty, self.next_sequence, self._corpus))

    def _on_done(self, chunk: _Chunk, document: str) -> Callable[[Pools | Exception], None]:
        def done(outcome: Pools | Exception) -> None:
            if isinstance(outcome, RequestError | NotFiniteError | LeftOutError):
                reason = getattr(outcome, "reason", None) or status_of(outcome).code.name
                chunk.progress.skip(reason, str(outcome), document)
                self.skipped += 1
            elif isinstance(outcome, Exception):
                chunk.failure = outcome
            chunk.unfinished -= 1
            chunk.changed.set()
            self._window.release()

        return done


class Holding:
    """A client's hold on a job; at most one at a time."""

    def __init__(self, holder: str, stop: Callable[[Exception], None]) -> None:
        self.holder = holder
        self.stop = stop
        self.job: MeanJob | None = None
        self.ending = False
        self.released = asyncio.Event()

    def idle(self) -> float:
        """Seconds since the client's last message."""
        return time.monotonic() - self.job.last_message if self.job else 0.0


class Jobs:
    """All jobs of a server, on disk and in hand.

    Args:
        directory: Where checkpoints are kept.
        extractor: What computes.
        lease: Seconds of silence after which another client may take a job over.
    """

    def __init__(self, directory: Path, extractor: Extractor, lease: float = 30.0) -> None:
        self._directory = directory
        self._extractor = extractor
        self._lease = lease
        self._held: dict[str, Holding] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def open(self, settings: JobSettings, holding: Holding, *, take_over: bool) -> MeanJob:
        """Hold a job, new or as its last commit left it.

        Raises:
            JobHeldError: another client holds it.
            JobMismatchError: it has other settings.
        """
        while (held := self._held.get(settings.job)) is not None:
            if not held.ending:
                self._check_may_take(settings.job, held, holding.holder, take_over=take_over)
                held.stop(JobHeldError(f"job {settings.job} was taken over by another connection"))
            await held.released.wait()
        self._held[settings.job] = holding
        try:
            directory = JobDirectory(self._directory / settings.job)
            progress = await asyncio.to_thread(self._load, directory, settings)
        except BaseException:
            self._release(settings.job, holding)
            raise
        holding.job = MeanJob(settings, directory, self._extractor, progress)
        return holding.job

    async def finished(self, settings: JobSettings) -> tuple[int, str] | None:
        """How many documents a finished job took and its mean's id; None for an unfinished one.

        Raises:
            JobMismatchError: it has other settings.
        """
        directory = JobDirectory(self._directory / settings.job)
        finished = await asyncio.to_thread(directory.finished)
        if finished is not None:
            await asyncio.to_thread(_check_settings, directory, settings)
        return finished

    def end(self, name: str, holding: Holding) -> None:
        """Let a job go, once what it has taken is computed and durable."""
        holding.ending = True

        async def wind_down() -> None:
            try:
                if holding.job is not None:
                    await holding.job.commit()
            except Exception:  # noqa: S110 - the client was told, or will find the commit before
                pass
            finally:
                if holding.job is not None:
                    holding.job.close()
                self._release(name, holding)

        task = asyncio.create_task(wind_down())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def drain(self) -> None:
        """Wait until every job that was let go is durable."""
        await asyncio.gather(*self._endings)

    def forget(self, mean: str) -> None:
        """Forget the finished jobs of a deleted mean. Call it off the event loop."""
        for path in self._directory.glob("*/finished.json"):
            directory = JobDirectory(path.parent)
            finished = directory.finished()
            if finished is not None and finished[1] == mean:
                directory.remove()

    def _check_may_take(self, job: str, held: Holding, holder: str, *, take_over: bool) -> None:
        if holder and holder == held.holder:
            return
        if take_over and held.idle() > self._lease:
            return
        raise JobHeldError(
            f"another client holds job {job}; its last message came {held.idle():.0f} s ago. "
            f"After {self._lease:.0f} s of silence it can be taken over with take_over"
        )

    @staticmethod
    def _load(directory: JobDirectory, settings: JobSettings) -> Progress:
        if directory.settings() is None:
            directory.create(settings.canonical)
        _check_settings(directory, settings)
        empty = MeanAccumulator(settings.record.d_model, variance=settings.variance)
        return directory.load() or Progress(empty)

    def _release(self, name: str, holding: Holding) -> None:
        if self._held.get(name) is holding:
            del self._held[name]
        holding.released.set()


def _check_settings(directory: JobDirectory, settings: JobSettings) -> None:
    before = directory.settings()
    if before != settings.canonical:
        raise JobMismatchError(
            f"job {settings.job} was begun with other settings: {before}; "
            f"now: {settings.canonical}. Use another job name"
        )
