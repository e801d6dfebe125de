"""How a server without an address of its own is found: an entry, renewed while it serves.

The entry's form is the contract's `Worker`; who looks for one reads the same.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Protocol

from actvec.v1.worker_pb2 import Worker

log = logging.getLogger(__name__)


class WorkerDirectory(Protocol):
    """Where entries stand, by the worker's task: what of a `modal.Dict` is needed."""

    async def put(self, key: str, value: bytes) -> None:
        """Write an entry, in the place of an older one."""

    async def pop(self, key: str) -> None:
        """Take an entry away, if it is there."""


def worker_entry(task_id: str, host: str, port: int) -> Worker:
    """The entry of a worker that begins to serve now."""
    entry = Worker(host=host, port=port, task_id=task_id, actvec_version=version("actvec"))
    entry.started_at.GetCurrentTime()
    return entry


@asynccontextmanager
async def announced(
    directory: WorkerDirectory, entry: Worker, heartbeat_seconds: float
) -> AsyncIterator[None]:
    """Within the block the worker can be found; after it, it cannot, however the block ends.

    Whoever is killed leaves an entry behind; that its heartbeat is old tells it from others.
    """
    await _renew(directory, entry)
    beating = asyncio.create_task(_beat(directory, entry, heartbeat_seconds))
    try:
        yield
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        await directory.pop(entry.task_id)


async def _beat(directory: WorkerDirectory, entry: Worker, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await _renew(directory, entry)
        except Exception:
            # Clients that are connected need no entry; the next renewal may come through.
            log.exception("cannot renew the entry of this worker; trying again in %g s", seconds)


async def _renew(directory: WorkerDirectory, entry: Worker) -> None:
    entry.heartbeat_at.GetCurrentTime()
    await directory.put(entry.task_id, entry.SerializeToString())
