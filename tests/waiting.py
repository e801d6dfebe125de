"""Waits for what tells nobody."""

import asyncio
import time
from collections.abc import Callable


async def eventually(condition: Callable[[], object]) -> None:
    """Return once the condition holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0.01)


def wait_until(condition: Callable[[], object]) -> None:
    """Return once the condition holds, in a test without an event loop."""
    deadline = time.perf_counter() + 60
    while not condition():
        assert time.perf_counter() < deadline
        time.sleep(0.01)
