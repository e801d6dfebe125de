"""Makes a server without a fixed address discoverable: an entry, renewed while it serves.

The entry is the contract's `Worker`, which clients read.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Protocol

from actvec.v1.worker_pb2 import Worker

log = logging.getLogger(__name__)


class WorkerDirectory(Protocol):
    """The entries of a deployment, by the worker's task; it also holds clients' claims."""

    async def entries(self) -> Mapping[str, bytes]:
        """All entries."""

    async def put(self, key: str, value: bytes) -> None:
        """Write an entry, or replace it."""

    async def pop(self, key: str) -> None:
        """Remove an entry, if it exists."""

    async def superseded(self) -> bool:
        """Whether the app was deployed again, so that no client looks here any more."""


def worker_entry(task_id: str, host: str, port: int, start_id: str = "") -> Worker:
    """Make the entry of a worker that starts to serve now."""
    entry = Worker(
        host=host, port=port, task_id=task_id, actvec_version=version("actvec"), start_id=start_id
    )
    entry.started_at.GetCurrentTime()
    return entry


async def is_wanted(directory: WorkerDirectory, start_id: str) -> bool:
    """Whether a client still waits for the worker of a start: its claim is in the directory.

    Modal reruns the input of a container that it preempted. By then the client has found its
    worker, or has started another.
    """
    for key, value in (await directory.entries()).items():
        if key.startswith("starting-") and Worker.FromString(value).start_id == start_id:
            return True
    return False


@asynccontextmanager
async def announced(
    directory: WorkerDirectory, entry: Worker, heartbeat_seconds: float
) -> AsyncIterator[asyncio.Event]:
    """Announce the worker within the block; remove its entry however the block ends.

    A killed worker leaves an entry behind, which no longer changes.

    Yields:
        An event, set once the app was deployed again.
    """
    superseded = asyncio.Event()
    await _renew(directory, entry)
    beating = asyncio.create_task(_beat(directory, entry, heartbeat_seconds, superseded))
    try:
        yield superseded
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        await directory.pop(entry.task_id)


async def _beat(
    directory: WorkerDirectory, entry: Worker, seconds: float, superseded: asyncio.Event
) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await _renew(directory, entry)
            if await directory.superseded():
                superseded.set()
        except Exception:
            # Connected clients need no entry; the next renewal may succeed.
            log.exception("cannot renew the entry of this worker; trying again in %g s", seconds)


async def _renew(directory: WorkerDirectory, entry: Worker) -> None:
    entry.heartbeat_at.GetCurrentTime()
    await directory.put(entry.task_id, entry.SerializeToString())
