"""Finds the workers of a deployment, and starts those that are missing."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from actvec.client.errors import (
    ActvecError,
    DeadlineExceeded,
    ProtocolError,
    ServerError,
    ServerUnavailable,
    Unimplemented,
    WorkerNotAwake,
)
from actvec.client.transport.address import Address, Waking
from actvec.client.workers.directory import Deployment, Directory
from actvec.client.workers.starts import Starts
from actvec.v1.worker_pb2 import Worker

# How a call ends where no worker of ours answers: nobody does, or somebody else who has the address
# of a tunnel that was closed.
_NOT_THERE = (ServerUnavailable, DeadlineExceeded, Unimplemented, ServerError, ProtocolError)

# Seconds that the first look may take, however short the wait for a worker is to be.
_ONE_LOOK = 10.0

# Calls a worker; returns if the worker answers properly.
#
# Raises ServerUnavailable or DeadlineExceeded if it is gone.
Probe = Callable[[Address], Awaitable[None]]


class Fleet:
    """The workers of a deployment, as one client uses them.

    Args:
        deployment: Finds and starts them.
        size: Number of workers to use; missing ones are started.
        probe: Calls one of them.
        waking: How long to wait for one.
    """

    def __init__(self, deployment: Deployment, size: int, probe: Probe, waking: Waking) -> None:
        self._deployment = deployment
        self._directory = Directory(deployment)
        self._starts = Starts(deployment, self._directory, size)
        self._size = size
        self._probe = probe
        self._waking = waking
        self._patience = max(waking.seconds, _ONE_LOOK)
        self._users: Counter[str] = Counter()
        # A search at a time, so that no two take the same worker while others are free.
        self._searching = asyncio.Lock()
        # Whether the directory has not answered yet that was asked last.
        self._asking = False
        # Why the deployment, or the worker that was asked last, did not answer.
        self._silence = ""

    def __str__(self) -> str:
        return str(self._deployment)

    def place(self) -> "WorkerPlace":
        """A place for one connection."""
        return WorkerPlace(self)

    async def count(self) -> int:
        """How many workers answer, and how many there are to be if that is more.

        Raises:
            ActvecError: one of them refuses this client.
        """
        workers, _ = await self._directory.read()
        return max(len(await self._answering(workers)), self._size)

    async def find(self) -> Worker:
        """A worker that answers, if possible one that this client does not use yet.

        Where fewer workers answer than there are to be, another is started and waited for.

        Raises:
            WorkerNotAwake: it does not come.
            ActvecError: one of them refuses this client.
        """
        began = time.monotonic()
        worker = None
        try:
            async with self._starts.search():
                try:
                    async with asyncio.timeout(self._patience):
                        while worker is None:
                            worker = await self._try(began)
                except TimeoutError:
                    if worker is None:
                        raise self._not_awake() from None
        except BaseException:
            # Cancelled at the end of the block, once one was taken: no caller would use it.
            if worker is not None:
                self.release(worker)
            raise
        return worker

    async def _try(self, began: float) -> Worker | None:
        """Look once; if none is free, have one started, and wait until the next look."""
        try:
            async with self._searching:
                worker = await self._look()
            if worker is not None:
                return worker
            waited = time.monotonic() - began
            await self._check(waited)
            self._waking.tell(waited, self._starts.describe())
        except ServerUnavailable as error:
            waited = time.monotonic() - began
            # The deployment is away for a moment, unless that is its last word.
            if isinstance(error, WorkerNotAwake) or waited > self._waking.seconds:
                raise
            self._silence = f"; {error}"
            self._waking.tell(waited, str(error))
        await asyncio.sleep(self._waking.every)
        return None

    async def _look(self) -> Worker | None:
        """Take a running worker; have one started if there are too few."""
        self._asking = True
        workers, claims = await self._directory.read()
        self._asking = False
        answering = await self._answering(workers)
        await self._starts.settle({worker.start_id for worker in answering}, claims)
        worker = self._choose(answering)
        if worker is not None:
            self._users[worker.task_id] += 1
        elif len(answering) + len(claims) < self._size:
            await self._starts.begin(claims)
        return worker

    def release(self, worker: Worker) -> None:
        """Use it no more."""
        self._users[worker.task_id] -= 1

    def _choose(self, answering: Sequence[Worker]) -> Worker | None:
        worker = min(answering, key=lambda one: self._users[one.task_id], default=None)
        if worker is None:
            return None
        free = not self._users[worker.task_id]
        return worker if free or len(answering) >= self._size else None

    async def _check(self, waited: float) -> None:
        error = await self._starts.error()
        if error is not None:
            raise WorkerNotAwake(
                f"the worker that was started for {self} ended before it served: {error}"
            )
        if waited > self._waking.seconds:
            raise self._not_awake()

    def _not_awake(self) -> WorkerNotAwake:
        state = "its directory does not answer" if self._asking else self._starts.describe()
        return WorkerNotAwake(
            f"no worker of {self} answered within {self._patience:.0f} seconds "
            f"({state}{self._silence}); read its log and docs/modal.md, or allow more time",
            setting="wake_for",
        )

    async def _answering(self, workers: Sequence[Worker]) -> list[Worker]:
        answers = await asyncio.gather(*map(self._answers, workers))
        return [worker for worker, there in zip(workers, answers, strict=True) if there]

    async def _answers(self, worker: Worker) -> bool:
        try:
            await self._probe(target_of(worker))
        except ActvecError as error:
            if not isinstance(error, _NOT_THERE):
                raise
            self._silence = f"; at {target_of(worker)}: {error}"
            # One that was renewed lately may only be out of this client's reach.
            if self._directory.is_silent(worker):
                await self._directory.remove(worker)
            return False
        return True


class WorkerPlace:
    """A place that is wherever a worker of a fleet is."""

    moves = True

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._worker: Worker | None = None

    def __str__(self) -> str:
        return str(self._fleet)

    async def find(self) -> Address:
        """The address of a worker that answers; may start one, and wait for it.

        Raises:
            WorkerNotAwake: none came.
            ActvecError: one of them refuses this client.
        """
        if self._worker is not None:
            self._fleet.release(self._worker)
            self._worker = None
        self._worker = await self._fleet.find()
        return target_of(self._worker)


def target_of(worker: Worker) -> Address:
    """The address in an entry; tunnels are of TLS."""
    return Address(worker.host, worker.port, encrypted=True)
