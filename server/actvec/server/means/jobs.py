"""All jobs that make means: who holds which, and what they left on the disk."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from actvec.pooling import MeanAccumulator
from actvec.server.errors import (
    JobCorruptError,
    JobHeldError,
    JobMismatchError,
    JobWaitsError,
    StorageError,
)
from actvec.server.extractor import Extractor
from actvec.server.means.checkpoint import FinishedJob, JobDirectory, Progress
from actvec.server.means.mean_job import JobSettings, MeanJob
from actvec.server.means.replica import NO_REPLICA, Replica
from actvec.server.means.store import MeanStore

log = logging.getLogger(__name__)


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
        replica: Where checkpoints are shared with other machines.
    """

    def __init__(
        self,
        directory: Path,
        extractor: Extractor,
        lease: float,
        replica: Replica = NO_REPLICA,
    ) -> None:
        self._directory = directory
        self._extractor = extractor
        self._lease = lease
        self._replica = replica
        self._held: dict[str, Holding] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def open(
        self, settings: JobSettings, holding: Holding, store: MeanStore, *, take_over: bool
    ) -> MeanJob | FinishedJob:
        """Hold a job, new or as its last commit left it; a finished one needs no holding.

        One whose mean was deleted since is begun anew.

        Args:
            settings: The job's.
            holding: The client's.
            store: Where means of finished jobs are.
            take_over: Whether it may be taken from a client that has been silent.

        Raises:
            JobCorruptError: its files are damaged.
            JobHeldError: another client holds it.
            JobMismatchError: it has other settings.
            StorageError: what other machines have of it cannot be seen, or it cannot be written.
        """
        while (held := self._held.get(settings.job)) is not None:
            if not held.ending:
                self._check_may_take(settings.job, held, holding.holder, take_over=take_over)
                held.stop(JobHeldError(f"job {settings.job} was taken over by another connection"))
            await held.released.wait()
        self._held[settings.job] = holding
        directory = JobDirectory(self._directory / settings.job, self._replica)
        try:
            left = await asyncio.to_thread(_load, directory, settings, store)
        except BaseException:
            self._release(settings.job, holding)
            raise
        if isinstance(left, FinishedJob):
            self._release(settings.job, holding)
            return left
        holding.job = MeanJob(settings, directory, self._extractor, left)
        return holding.job

    def end(self, name: str, holding: Holding) -> None:
        """Let a job go, once what it has taken is computed and durable."""
        holding.ending = True
        # A commit that failed before now has ended the call, whose error is in the log.
        reported = holding.job is not None and holding.job.failed

        async def wind_down() -> None:
            try:
                if holding.job is not None:
                    await holding.job.commit()
            except JobWaitsError as error:
                log.warning("job %s is let go: %s", name, error)
            except StorageError as error:
                if not reported:
                    log.error("job %s is released at its last commit: %s", name, error)
            except Exception:
                # The client was told, or will find the commit before.
                log.exception("job %s is let go as its last commit left it", name)
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
        """Forget the finished jobs of a deleted mean. Call it off the event loop.

        Only those of this disk: elsewhere, `open` notices that the mean is gone.
        """
        for path in self._directory.glob("*/finished.json"):
            directory = JobDirectory(path.parent, self._replica)
            try:
                finished = directory.finished()
            except JobCorruptError as error:
                log.warning("%s", error)
                continue
            if finished is not None and finished.mean == mean:
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

    def _release(self, name: str, holding: Holding) -> None:
        if self._held.get(name) is holding:
            del self._held[name]
        holding.released.set()


def _load(
    directory: JobDirectory, settings: JobSettings, store: MeanStore
) -> Progress | FinishedJob:
    """What a job has come to; a new one is begun, and one whose mean is gone begun anew."""
    directory.refresh()
    finished = directory.finished()
    if finished is not None and not store.holds(finished.mean):
        # Deleted by another machine, or by a server that was killed before it came to the job.
        log.info("job %s is begun anew: its mean %s is gone", settings.job, finished.mean)
        directory.remove()
    before = directory.settings()
    if before is None:
        directory.create(settings.canonical)
    elif before != settings.canonical:
        raise JobMismatchError(
            f"job {settings.job} was begun with other settings: {before}; "
            f"now: {settings.canonical}. Use another job name"
        )
    empty = MeanAccumulator(settings.record.d_model, variance=settings.variance)
    return directory.finished() or directory.load() or Progress(empty)
