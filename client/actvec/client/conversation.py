"""A bidirectional stream, run to its end in both directions, and again where it breaks."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import grpc.aio

from actvec.client.errors import ServerUnavailable
from actvec.client.retry import Backoff, Patience

_log = logging.getLogger("actvec.client")


class BrokenError(Exception):
    """The connection is gone, or ended before all was said; another one may go on."""


async def converse(
    call: grpc.aio.Call,
    sending: Coroutine[Any, Any, None],
    receiving: Coroutine[Any, Any, None],
) -> None:
    """Send and receive until both are done or one fails; the call is over then.

    Raises:
        Exception: what `sending` raised, or else what `receiving` did.
    """
    sender = asyncio.create_task(sending)
    receiver = asyncio.create_task(receiving)
    try:
        await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        # In this order: cancelling the call ends the operation that the receiver waits for, where
        # cancelling the receiver would leave it to itself.
        call.cancel()
        await asyncio.wait({receiver})
        sender.cancel()
        ends = await asyncio.gather(sender, receiver, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


class Reconnection:
    """Pauses between the attempts of one stream, and the end of patience with it."""

    def __init__(self, target: str, retry_for: float) -> None:
        """`retry_for`: seconds without progress after which a broken stream is given up."""
        self._target = target
        self._retry_for = retry_for
        self._patience = Patience(Backoff(), retry_for)

    def progress(self) -> None:
        """Something was achieved: start afresh at the next break."""
        self._patience.progress()

    async def wait(self, broken: BrokenError, pending: str) -> None:
        """Pause before the next attempt. `pending` says what it is for, in errors.

        Raises:
            ServerUnavailable: there has been no progress for too long.
        """
        pause = self._patience.pause()
        if pause is None:
            raise ServerUnavailable(
                f"the stream broke and for {self._retry_for:g} seconds no reconnection got any"
                f" further; {pending}: {broken}"
            ) from broken.__cause__
        _log.warning(
            "the stream to %s broke (%s); reconnecting in %.1f s; %s",
            self._target,
            broken,
            pause,
            pending,
        )
        await asyncio.sleep(pause)
