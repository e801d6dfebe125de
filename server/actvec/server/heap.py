"""The heap of the process: freed memory stays for the next step, and goes back after the calls."""

import asyncio
import ctypes
import time
from collections.abc import Callable

import psutil

# Seconds between two looks at the process, and between two times of tidying while calls hold
# memory: it stops all of them, and they take the memory from the system again.
_SECONDS, _BUSY_SECONDS = 5.0, 60.0

# Growth of the process, in bytes, after which it is tidied.
_GROWN = 16 << 20


def keep_freed_memory() -> None:
    """Make glibc keep the memory freed by a step for the next one; elsewhere, do nothing.

    By default it returns the tensors of a step, some megabytes each, to the system and takes them
    again, cleared page by page: a few percent of the time on a CPU. Several arenas, one per thread,
    do so even more often.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # malloc.h
    mallopt(arena_max, 1)
    mallopt(trim_threshold, 1 << 30)
    mallopt(mmap_threshold, 1 << 30)


def give_back_memory() -> None:
    """Make glibc return the free memory of its heap to the system; elsewhere, do nothing.

    Takes up to a tenth of a second per gigabyte, during which no thread gets memory.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)


def resident_bytes() -> int:
    """The memory that the process has from the system."""
    resident: int = psutil.Process().memory_info().rss
    return resident


class Tidying:
    """Gives freed memory back after the process has grown, whatever made it grow.

    Counting what calls free would miss callers who never get to a call, such as one whose headers
    have no end.

    Args:
        held: Returns the bytes that calls hold now.
        tidy: Gives freed memory back; called on a thread.
        resident: Returns the process's bytes.
    """

    def __init__(
        self,
        held: Callable[[], int],
        tidy: Callable[[], None] = give_back_memory,
        resident: Callable[[], int] = resident_bytes,
    ) -> None:
        self._held = held
        self._tidy = tidy
        self._resident = resident
        self._least = resident()
        self._done = time.monotonic() - _BUSY_SECONDS

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Look at the process, and tidy if it has grown."""
        now = self._resident()
        self._least = min(self._least, now)
        rested = time.monotonic() >= self._done + _BUSY_SECONDS
        if now >= self._least + _GROWN and (rested or not self._held()):
            await asyncio.to_thread(self._tidy)
            self._least, self._done = self._resident(), time.monotonic()
