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
        seconds: How long it may be silent.
        busy: Whether the server still owes it something.

    Raises:
        IdleError: it was silent.
    """
    while True:
        # Waited for, not cancelled: gRPC's iterator would end with a cancelled read.
        following = asyncio.ensure_future(anext(messages, None))
        try:
            while not (await asyncio.wait({following}, timeout=seconds))[0]:
                if not busy():
                    raise IdleError(
                        f"nothing was sent for {seconds:g} seconds; open another stream to go on"
                    )
            message = await following
        finally:
            following.cancel()
        if message is None:
            return
        # Not kept alive from here while the next one is awaited.
        del following
        yield message
        del message
