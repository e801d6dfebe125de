"""An end to streams in which nothing happens."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from actvec.server.errors import IdleError

Message = TypeVar("Message")


async def until_idle(
    messages: AsyncIterator[Message], seconds: float, busy: Callable[[], bool] = lambda: False
) -> AsyncIterator[Message]:
    """The messages of a stream, until none came for a while and nothing is under way.

    Args:
        messages: What the client sends.
        seconds: How long it may be silent after its last message, or after the server's last answer
            to it; at most twice as long passes before its end.
        busy: Whether the server still owes it something.

    Raises:
        IdleError: it was silent.
    """
    while True:
        # Waited for, not cancelled: gRPC's iterator would end with a cancelled read.
        following = asyncio.ensure_future(anext(messages, None))
        was_busy = busy()
        try:
            while not (await asyncio.wait({following}, timeout=seconds))[0]:
                is_busy = busy()
                if not (was_busy or is_busy):
                    raise IdleError(
                        f"nothing was sent for {seconds:g} seconds; open another stream to continue"
                    )
                was_busy = is_busy
            message = await following
        finally:
            following.cancel()
        if message is None:
            return
        # Not kept alive from here while the next one is awaited.
        del following
        yield message
        del message
