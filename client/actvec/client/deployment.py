"""Where workers without an address of their own are found and started; Modal is one such place.

A directory holds an entry of each worker that serves, the contract's `Worker`, under its task's
name. A client that starts a worker writes an entry without a host, a claim, so that others wait for
that worker and start none of their own.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from google.protobuf.message import DecodeError

from actvec.client.errors import ProtocolError
from actvec.v1.worker_pb2 import Worker

# Workers renew their entries every ten seconds, clients their claims more often.
_STALE = timedelta(seconds=60)


class Starting(Protocol):
    """A worker that was started and may not serve yet."""

    async def error(self) -> str | None:
        """Why it will never serve; None while it may."""

    async def cancel(self) -> None:
        """Have it not started after all, where it does not serve yet."""


class Deployment(Protocol):
    """Starts workers, and has the directory where they are found. `str` of it names it.

    Its methods raise ServerUnavailable where the same may do a moment later.
    """

    async def entries(self) -> Mapping[str, bytes]:
        """The directory."""

    async def put(self, key: str, value: bytes, *, skip_if_exists: bool) -> bool:
        """Write an entry; False where there is one, and it was not to be replaced."""

    async def pop(self, key: str) -> None:
        """Take an entry away, if it is there."""

    async def start(self) -> Starting:
        """Start a worker, and do not wait for it."""


class Directory:
    """The entries of a deployment, decoded."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    async def read(self) -> tuple[list[Worker], set[str]]:
        """The workers, those with the newest heartbeat first, and the keys of claims in force.

        Raises:
            ProtocolError: there are entries of another kind.
        """
        workers, claims = [], set()
        for key, value in (await self._deployment.entries()).items():
            entry = _decode(key, value)
            if entry.host:
                workers.append(entry)
            elif not is_stale(entry):
                claims.add(key)
        workers.sort(key=lambda worker: worker.heartbeat_at.ToNanoseconds(), reverse=True)
        return workers, claims

    async def remove(self, worker: Worker) -> None:
        """Take away the entry of a worker that is gone."""
        await self._deployment.pop(worker.task_id)

    async def claim(self, slots: int, in_force: set[str]) -> str | None:
        """Claim the right to start one of so many workers; None where others hold all of them."""
        for slot in range(slots):
            key = f"starting-{slot}"
            if key in in_force:
                continue
            if await self._deployment.put(key, _now(), skip_if_exists=True):
                return key
            # Written a moment ago, unless it is of a client that was killed.
            _, claims = await self.read()
            if key in claims:
                continue
            await self._deployment.pop(key)
            if await self._deployment.put(key, _now(), skip_if_exists=True):
                return key
        return None

    async def renew(self, claim: str) -> None:
        """Keep a claim in force."""
        await self._deployment.put(claim, _now(), skip_if_exists=False)

    async def release(self, claim: str) -> None:
        """Give a claim up."""
        await self._deployment.pop(claim)


def is_stale(entry: Worker) -> bool:
    """Whether an entry was not renewed for long: its worker, or client, was killed.

    By this machine's clock, so that it says little where that is wrong: a worker that answers is
    there, whatever its entry says.
    """
    heartbeat = entry.heartbeat_at.ToDatetime(tzinfo=UTC)
    return datetime.now(UTC) - heartbeat > _STALE


def _now() -> bytes:
    claim = Worker()
    claim.heartbeat_at.GetCurrentTime()
    return claim.SerializeToString()


def _decode(key: str, value: bytes) -> Worker:
    try:
        return Worker.FromString(value)
    except (DecodeError, TypeError) as error:
        raise ProtocolError(
            f"entry {key!r} of the directory of workers is none of actvec's: {error}"
        ) from error
