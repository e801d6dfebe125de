"""A clock that tests set forward, instead of waiting until a limit in seconds has passed."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Clock:
    """The monotonic clock of this process: of our code, and of event loops.

    It stays ahead after a test, since such a clock never goes back. gRPC has a clock of its own.

    Attributes:
        stopped: Whether `run` and `passes` wait at present, and set it no further.
    """

    def __init__(self) -> None:
        self.stopped: Callable[[], bool] = lambda: False
        self._ahead = 0.0
        real = time.monotonic
        time.monotonic = lambda: real() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let so much time have passed."""
        self._ahead += seconds

    async def run(self, seconds: float, until: Callable[[], bool]) -> None:
        """Let so much time pass, and again, until the condition holds."""
        while not until():
            if not self.stopped():
                self.advance(seconds)
            await asyncio.sleep(0.01)

    async def passes(self, seconds: float, awaited: Coroutine[Any, Any, Result]) -> Result:
        """Let so much time pass, and again, until this ends; return its result."""
        task = asyncio.create_task(awaited)
        await self.run(seconds, until=task.done)
        return await task


CLOCK = Clock()
"""The only one. It starts before our modules are imported: they may keep `time.monotonic`."""
