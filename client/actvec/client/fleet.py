"""Finds the workers of a deployment, and starts those that are missing."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from actvec.client.channel import Target
from actvec.client.deployment import Deployment, Directory, Starting, is_stale
from actvec.client.errors import ActvecError, DeadlineExceeded, ServerUnavailable, WorkerNotAwake
from actvec.client.place import Waking
from actvec.v1.worker_pb2 import Worker

# Calls a worker: returns where it answers as it should.
#
# Raises ServerUnavailable or DeadlineExceeded where it is not there.
Probe = Callable[[Target], Awaitable[None]]


class Fleet:
    """The workers of a deployment, as one client uses them.

    Args:
        deployment: Where they are found and started.
        size: How many are to be there; fewer are made up for by starting others.
        probe: Calls one of them.
        waking: How long one is waited for.
    """

    def __init__(self, deployment: Deployment, size: int, probe: Probe, waking: Waking) -> None:
        self._deployment = deployment
        self._directory = Directory(deployment)
        self._size = size
        self._probe = probe
        self._waking = waking
        self._users: Counter[str] = Counter()
        # A search at a time, so that no two take the same worker while others are free.
        self._searching = asyncio.Lock()

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
        """A worker that answers: one that this client does not use yet where there is one.

        Where fewer workers answer than there are to be, another is started and waited for.

        Raises:
            WorkerNotAwake: it does not come.
            ActvecError: one of them refuses this client.
        """
        began = time.monotonic()
        worker = None
        try:
            async with _Start(self._deployment, self._directory, self._size) as start:
                while worker is None:
                    worker = await self._try(start, time.monotonic() - began)
        except BaseException:
            # Cancelled when one was taken, at the end of the block: nobody is there to use it.
            if worker is not None:
                self.release(worker)
            raise
        return worker

    async def _try(self, start: "_Start", waited: float) -> Worker | None:
        """Look once; where none is free, see that one comes, and wait until the next look."""
        try:
            async with self._searching:
                worker = await self._look(start)
            if worker is not None:
                return worker
            await self._check(start, waited)
            self._waking.tell(waited, start.describe())
        except ServerUnavailable as error:
            # The deployment is away for a moment, unless that is its last word.
            if isinstance(error, WorkerNotAwake) or waited > self._waking.seconds:
                raise
            self._waking.tell(waited, str(error))
        await asyncio.sleep(self._waking.every)
        return None

    async def _look(self, start: "_Start") -> Worker | None:
        """Take a worker that is there; see that one is started where there are too few."""
        workers, claims = await self._directory.read()
        answering = await self._answering(workers)
        worker = self._choose(answering)
        if worker is not None:
            self._users[worker.task_id] += 1
        else:
            await start.unless_enough({one.task_id for one in answering}, claims)
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

    async def _check(self, start: "_Start", waited: float) -> None:
        error = await start.error()
        if error is not None:
            raise WorkerNotAwake(
                f"the worker that was started for {self} ended before it served: {error}"
            )
        if waited > self._waking.seconds:
            raise WorkerNotAwake(
                f"no worker of {self} answered within {self._waking.seconds:.0f} seconds"
                f" ({start.describe()}); look at its log, and see docs/modal.md, or allow more with"
                " --wake-for"
            )

    async def _answering(self, workers: Sequence[Worker]) -> list[Worker]:
        answers = await asyncio.gather(*map(self._answers, workers))
        return [worker for worker, there in zip(workers, answers, strict=True) if there]

    async def _answers(self, worker: Worker) -> bool:
        try:
            await self._probe(target_of(worker))
        except ActvecError as error:
            # Whatever answers at the address of a worker that renews its entry no more: not it.
            if is_stale(worker):
                await self._directory.remove(worker)
            # One that was renewed lately may only be out of this client's reach.
            elif not isinstance(error, ServerUnavailable | DeadlineExceeded):
                raise
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

    async def find(self) -> Target:
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


class _Start:
    """What a search has started; its claim is given up at the end of the block."""

    def __init__(self, deployment: Deployment, directory: Directory, size: int) -> None:
        self._deployment = deployment
        self._directory = directory
        self._size = size
        self._claim: str | None = None
        self._starting: Starting | None = None
        self._before: set[str] = set()

    async def __aenter__(self) -> "_Start":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        starting = self._starting
        try:
            # Where it cannot be given up, the claim is void in a minute, as nobody renews it. That
            # is no reason to lose what was found, or to say another error than the search's own.
            with suppress(ActvecError):
                await self._release()
        finally:
            # Nobody waits for it any more, and it would be paid for.
            if kind is not None and starting is not None:
                await starting.cancel()

    async def unless_enough(self, answering: set[str], claims: set[str]) -> None:
        """Start a worker where, with those that are being started, there are not enough."""
        if self._claim is not None and answering <= self._before:
            await self._directory.renew(self._claim)
            return
        # What was started is there, and another search was faster to take it.
        await self._release()
        if len(answering) + len(claims) < self._size:
            beginning = asyncio.create_task(self._begin(answering, claims))
            try:
                await asyncio.shield(beginning)
            except asyncio.CancelledError:
                # What is claimed or started must be known, or it could not be given up.
                await beginning
                raise

    async def _begin(self, answering: set[str], claims: set[str]) -> None:
        self._claim = await self._directory.claim(self._size, claims)
        if self._claim is not None:
            self._before = answering
            self._starting = await self._deployment.start()

    async def error(self) -> str | None:
        """Why the worker will never serve; None while it may, and where none was started."""
        return None if self._starting is None else await self._starting.error()

    def describe(self) -> str:
        """What is waited for."""
        if self._claim is not None:
            return f"starting a worker of {self._deployment}"
        return f"waiting for a worker of {self._deployment} that another client starts"

    async def _release(self) -> None:
        claim, self._claim, self._starting = self._claim, None, None
        if claim is not None:
            await self._directory.release(claim)


def target_of(worker: Worker) -> Target:
    """The address in an entry; tunnels are of TLS."""
    return Target(worker.host, worker.port, encrypted=True)
