"""A bidirectional stream, run to its end in both directions, and again if it breaks."""

import asyncio
import logging
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import grpc.aio

from actvec.client.errors import ServerUnavailable

_log = logging.getLogger("actvec.client")


class BrokenError(Exception):
    """The connection is gone, or ended too early; another one may continue."""


@dataclass(frozen=True)
class Backoff:
    """Pauses that double from one attempt to the next, each shortened at random.

    The randomness keeps many clients from coming back in step after a server's restart.

    Attributes:
        initial: Seconds of the first pause, at most.
        maximum: Seconds of any pause, at most.
    """

    initial: float = 0.1
    maximum: float = 10.0

    def pause(self, failures: int) -> float:
        """Seconds to wait after this many failures in a row (1 or more)."""
        longest = min(self.maximum, self.initial * 2.0 ** min(failures - 1, 32))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


async def run_duplex(
    call: grpc.aio.Call,
    sending: Coroutine[Any, Any, None],
    receiving: Coroutine[Any, Any, None],
) -> None:
    """Send and receive until both are done or one fails; the call is over then.

    Raises:
        Exception: the error of `sending`, or else of `receiving`.
    """
    sender = asyncio.create_task(sending)
    receiver = asyncio.create_task(receiving)
    try:
        await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        # In this order: cancelling the call ends the operation that the receiver waits for;
        # cancelling the receiver would leave that operation running.
        call.cancel()
        await asyncio.wait({receiver})
        sender.cancel()
        ends = await asyncio.gather(sender, receiver, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


class Reconnection:
    """Pauses between the attempts of one stream, and the end of patience with it.

    Args:
        target: The server, for errors.
        retry_for: Seconds from the first break without progress since to giving up.
    """

    def __init__(self, target: str, retry_for: float) -> None:
        self._target = target
        self._retry_for = retry_for
        self._backoff = Backoff()
        self._failures = 0
        self._since = 0.0

    def progress(self) -> None:
        """Something was achieved: start afresh at the next break."""
        self._failures = 0

    async def wait(self, broken: BrokenError, pending: str) -> None:
        """Pause before the next attempt. `pending` names the unfinished work in errors.

        Raises:
            ServerUnavailable: there has been no progress for too long.
        """
        pause = self.pause()
        if pause is None:
            raise ServerUnavailable(
                "the stream broke, and no reconnection made progress for "
                f"{self._retry_for:g} seconds; {pending}: {broken}"
            ) from broken.__cause__
        _log.warning(
            "the stream to %s broke (%s); reconnecting in %.1f s; %s",
            self._target,
            broken,
            pause,
            pending,
        )
        await asyncio.sleep(pause)

    def pause(self) -> float | None:
        """Seconds to wait after another break; None to give up."""
        now = time.monotonic()
        if not self._failures:
            self._since = now
        self._failures += 1
        remaining = self._since + self._retry_for - now
        if remaining <= 0:
            return None
        return min(self._backoff.pause(self._failures), remaining)
