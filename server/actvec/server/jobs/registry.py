"""All jobs that compute means: their holders, and their state on disk."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from actvec.server.engine.memory import check_sums
from actvec.server.errors import (
    JobCorruptError,
    JobHeldError,
    JobMismatchError,
    JobWaitsError,
    StorageError,
    SumsLostError,
)
from actvec.server.extraction.extractor import Extractor
from actvec.server.jobs.checkpoint import FinishedJob, JobDirectory, JobState
from actvec.server.jobs.mean_job import MeanJob
from actvec.server.jobs.settings import JobSettings
from actvec.server.means.replica import NO_REPLICA, Replica
from actvec.server.means.store import MeanStore

log = logging.getLogger(__name__)


class Lease:
    """A client's hold on a job; at most one at a time."""

    def __init__(self, holder: str, stop: Callable[[Exception], None]) -> None:
        self.holder = holder
        self.stop = stop
        self.loading: asyncio.Future[JobState | FinishedJob] | None = None
        self.job: MeanJob | None = None
        self.ending = False
        self.released = asyncio.Event()

    def idle(self) -> float:
        """Seconds since the client's last message."""
        return time.monotonic() - self.job.last_message if self.job else 0.0


class Jobs:
    """All jobs of a server, on disk and held by clients.

    Args:
        directory: The directory of checkpoints.
        extractor: Computes the states.
        lease: Seconds of silence after which another client may take a job over.
        replica: Where to share checkpoints with other machines.
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
        self._held: dict[str, Lease] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def open(
        self, settings: JobSettings, holding: Lease, store: MeanStore, *, take_over: bool
    ) -> MeanJob | FinishedJob:
        """Hold a job, new or resumed from its last commit; a finished one needs no hold.

        A job whose mean was deleted since starts again.

        Args:
            settings: The job's settings.
            holding: The client's hold.
            store: The store of finished means.
            take_over: Whether to take it from a client that has been silent.

        Raises:
            JobCorruptError: its files are damaged.
            JobHeldError: another client holds it.
            JobMismatchError: it has other settings.
            SumsTooLargeError: it has separate layers, and there is no memory for their sums.
            StorageError: other machines' files of it cannot be read, or it cannot be written.
        """
        while (held := self._held.get(settings.job)) is not None:
            if not held.ending:
                self._check_may_take(settings.job, held, holding.holder, take_over=take_over)
                held.stop(JobHeldError(f"job {settings.job} was taken over by another connection"))
            await held.released.wait()
        self._held[settings.job] = holding
        directory = JobDirectory(self._directory / settings.job, self._replica)
        devices, longest = self._extractor.devices, self._extractor.max_tokens
        load = asyncio.to_thread(load_job, directory, settings, store, devices, longest)
        holding.loading = asyncio.create_task(load)
        try:
            left = await asyncio.shield(holding.loading)
        except BaseException:
            self.end(settings.job, holding)
            raise
        if isinstance(left, FinishedJob):
            self._release(settings.job, holding)
            return left
        holding.job = MeanJob(settings, directory, self._extractor, left)
        return holding.job

    def end(self, name: str, holding: Lease) -> None:
        """Release a job once everything it has taken is computed and durable."""
        holding.ending = True
        # A commit that failed earlier has ended the call and logged its error.
        reported = holding.job is not None and holding.job.failed

        async def wind_down() -> None:
            try:
                if holding.loading is not None:
                    # The thread of a cancelled call may still write the job's files.
                    await asyncio.wait([holding.loading])
                if holding.job is not None:
                    await holding.job.commit()
            except (JobWaitsError, SumsLostError) as error:
                log.warning("job %s is dropped from memory: %s", name, error)
            except StorageError as error:
                if not reported:
                    log.error("job %s is released at its last commit: %s", name, error)
            except Exception:
                # The client got this error, or will resume from the last commit.
                log.exception("job %s is dropped from memory, at its last commit", name)
            finally:
                if holding.job is not None:
                    holding.job.close()
                self._release(name, holding)

        task = asyncio.create_task(wind_down())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def drain(self) -> None:
        """Wait until every released job is durable."""
        await asyncio.gather(*self._endings)

    def forget(self, mean: str) -> None:
        """Forget the finished jobs of a deleted mean. Call it off the event loop.

        Only those on this disk that no client opens just now: elsewhere, `open` notices that the
        mean is gone.
        """
        for path in sorted(self._directory.glob("*/finished.json")):
            if path.parent.name in self._held:
                continue
            directory = JobDirectory(path.parent, self._replica)
            try:
                finished = directory.finished()
            except JobCorruptError as error:
                log.warning("%s", error)
                continue
            if finished is not None and finished.mean == mean:
                directory.remove()

    def _check_may_take(self, job: str, held: Lease, holder: str, *, take_over: bool) -> None:
        if holder and holder == held.holder:
            return
        if take_over and held.idle() > self._lease:
            return
        raise JobHeldError(
            f"another client holds job {job}; its last message came {held.idle():.0f} s ago. "
            f"After {self._lease:.0f} s of silence another client may take it over"
        )

    def _release(self, name: str, holding: Lease) -> None:
        if self._held.get(name) is holding:
            del self._held[name]
        holding.released.set()


def _differences(begun: str, now: str) -> str:
    """List the settings that differ between two jobs, with both values; arguments are JSON."""
    before, after = dict(_flat(json.loads(begun))), dict(_flat(json.loads(now)))
    names = sorted(before.keys() | after.keys())
    return "; ".join(
        f"{name} was {before.get(name, 'not set')} and is {after.get(name, 'not set')}"
        for name in names
        if before.get(name) != after.get(name)
    )


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield each value in a tree of objects, with its dotted name; a list is one value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, json.dumps(value)


def load_job(
    directory: JobDirectory,
    settings: JobSettings,
    store: MeanStore,
    devices: Sequence[str],
    longest: int,
) -> JobState | FinishedJob:
    """Load a job's state; start a new one, or one whose mean is gone.

    Args:
        directory: The job's files.
        settings: The job's settings.
        store: The store of means.
        devices: The device of each engine that sums the job's documents.
        longest: Tokens of the longest document.

    Raises:
        JobCorruptError: its files are damaged.
        JobMismatchError: it has other settings.
        SumsTooLargeError: it has separate layers, and there is no memory for their sums.
        StorageError: other machines' files of it cannot be read, or it cannot be written.
    """
    directory.refresh()
    finished = directory.finished()
    if finished is not None and not store.holds(finished.mean):
        # Another machine deleted it, or a server that died before it came to the job.
        log.info("job %s starts again: its mean %s is gone", settings.job, finished.mean)
        directory.remove()
    # Before anything is written: a refused job has not started. Sums of averaged layers grow with
    # the longest document, which may be far shorter than the model's context; those of many layers
    # are too large to find out on the way.
    if directory.finished() is None and settings.target.separate:
        check_sums(devices, settings.sums_bytes(longest))
    before = directory.settings()
    if before is None:
        directory.create(settings.canonical)
    elif before != settings.canonical:
        raise JobMismatchError(
            f"job {settings.job} was begun with other settings: "
            f"{_differences(before, settings.canonical)}. Use those, or another job name"
        )
    return directory.finished() or directory.load() or JobState(settings.empty())
