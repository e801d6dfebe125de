"""Transfers of large files: limited is how long they stand still, not how long they take."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from actvec.client.errors import DeadlineExceeded

Item = TypeVar("Item")


@asynccontextmanager
async def stall_timeout(seconds: float, target: str) -> AsyncIterator[Callable[[], None]]:
    """Gives its block a function to call at each progress, and ends a block without progress.

    Args:
        seconds: How long the block may go without progress.
        target: The server, for the error.

    Raises:
        DeadlineExceeded: it went longer.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds) as limit:

            def progress() -> None:
                # gRPC may ask for another chunk, which is progress, when the block has ended.
                with suppress(RuntimeError):
                    limit.reschedule(loop.time() + seconds)

            yield progress
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"the transfer with {target} stood still for {seconds:g} seconds: the "
            "server is busy or the connection slow; try again, or allow more time",
            setting="timeout",
        ) from error


def counted(items: Iterable[Item], progress: Callable[[], None]) -> Iterator[Item]:
    """The same items; each is progress once the next one is asked for."""
    for item in items:
        yield item
        progress()
