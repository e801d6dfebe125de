"""Finds and starts workers without a fixed address, on Modal for example.

A directory holds an entry of each worker that serves, the contract's `Worker`, under its task's
name. A client that starts a worker writes an entry without a host, a claim, so that others wait for
that worker and start none of their own. Workers and clients renew their entries; one that does not
change any more is of a process that was killed. Each reader sees that by its own clock alone.
"""

import time
from collections.abc import Mapping
from typing import Protocol

from google.protobuf.message import DecodeError

from actvec.v1.worker_pb2 import Worker

_CLAIM = "starting-"

# Seconds without a change after which a worker's entry counts as left behind: workers renew theirs
# every ten seconds.
_WORKER_SILENT = 60.0

# The same for a claim: clients renew theirs with every look, about once per second.
_CLAIM_SILENT = 30.0


class Starting(Protocol):
    """A worker that was started and may not serve yet."""

    async def error(self) -> str | None:
        """Why it will never serve; None while it may."""

    async def cancel(self) -> None:
        """Cancel the start, if the worker does not serve yet."""


class Deployment(Protocol):
    """Starts workers and holds their directory. `str` of it names it.

    Its methods raise ServerUnavailable if a retry may succeed.
    """

    async def entries(self) -> Mapping[str, bytes]:
        """The directory."""

    async def put(self, key: str, value: bytes, *, skip_if_exists: bool) -> bool:
        """Write an entry; False if one exists and must not be replaced."""

    async def pop(self, key: str) -> None:
        """Remove an entry, if it exists."""

    async def start(self, start_id: str) -> Starting:
        """Start a worker, whose entry then names this start, and do not wait for it."""


class Directory:
    """The entries of a deployment, decoded, as one client sees them change."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        # Each entry as it was read last, and when this client first saw it so.
        self._seen: dict[str, tuple[bytes, float]] = {}

    async def read(self) -> tuple[list[Worker], dict[str, str]]:
        """The workers, and the claims in force: the start that each key stands for.

        An entry that nobody of ours has written is skipped.
        """
        entries = await self._deployment.entries()
        now = time.monotonic()
        before = self._seen
        self._seen = {
            key: before[key] if before.get(key, (None,))[0] == value else (value, now)
            for key, value in entries.items()
        }
        workers, claims = [], {}
        for key, value in entries.items():
            entry = _decode(value)
            if entry is None:
                continue
            if entry.host:
                workers.append(entry)
            elif key.startswith(_CLAIM) and not self._unchanged(key, _CLAIM_SILENT):
                claims[key] = entry.start_id
        return workers, claims

    def is_silent(self, worker: Worker) -> bool:
        """Whether a worker's entry has not changed for long, as this client has seen it."""
        return self._unchanged(worker.task_id, _WORKER_SILENT)

    async def remove(self, worker: Worker) -> None:
        """Remove the entry of a worker that is gone."""
        await self._deployment.pop(worker.task_id)

    async def claim(self, slots: int, in_force: Mapping[str, str], start_id: str) -> str | None:
        """Claim the right to start one of so many workers; None if others hold them all."""
        for slot in range(slots):
            key = f"{_CLAIM}{slot}"
            if key in in_force:
                continue
            if await self._deployment.put(key, _claim(start_id), skip_if_exists=True):
                return key
            # Written a moment ago, unless it is of a client that was killed.
            _, claims = await self.read()
            if key in claims:
                continue
            await self._deployment.pop(key)
            if await self._deployment.put(key, _claim(start_id), skip_if_exists=True):
                return key
        return None

    async def renew(self, claim: str, start_id: str) -> None:
        """Keep a claim in force."""
        await self._deployment.put(claim, _claim(start_id), skip_if_exists=False)

    async def release(self, claim: str) -> None:
        """Give a claim up."""
        await self._deployment.pop(claim)

    def _unchanged(self, key: str, seconds: float) -> bool:
        _, since = self._seen.get(key, (b"", time.monotonic()))
        return time.monotonic() - since > seconds


def _claim(start_id: str) -> bytes:
    claim = Worker(start_id=start_id)
    claim.heartbeat_at.GetCurrentTime()
    return claim.SerializeToString()


def _decode(value: bytes) -> Worker | None:
    try:
        return Worker.FromString(value)
    except (DecodeError, TypeError):
        return None
