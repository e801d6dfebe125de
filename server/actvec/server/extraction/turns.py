"""A thread that callers use in turns, so nobody waits for all the work of another."""

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

R = TypeVar("R")

# Number of callers whose last turn is remembered.
_REMEMBERED = 1000

# The niceness of a thread that steps aside: a tenth of the time that others get.
_ASIDE = 10


def _step_aside() -> None:
    """Let other threads of the machine run before this one."""
    # On other systems the priority belongs to the process.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _ASIDE)


@dataclass(eq=False)
class _Job(Generic[R]):
    function: Callable[[], R]
    outcome: "asyncio.Future[R]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Turns:
    """A thread that callers use in turns. Used on one event loop.

    Args:
        name: The thread's name.
        aside: Whether it computes only in the time that other threads leave, on systems with
            priorities per thread: for work of seconds, so that small calls get answers meanwhile.
    """

    def __init__(self, name: str, *, aside: bool = False) -> None:
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix=name, initializer=_step_aside if aside else None
        )
        self._waiting: dict[str, deque[_Job[object]]] = {}
        self._last_turn: dict[str, int] = {}
        self._turns = 0
        self._busy = False

    async def run(self, function: Callable[[], R], caller: str) -> R:
        """Call a function on the thread in the caller's turn; return or raise what it does."""
        job = _Job(function)
        self._waiting.setdefault(caller, deque()).append(job)  # type: ignore[arg-type]
        self._next()
        return await job.outcome

    def close(self) -> None:
        """End the thread, without waiting for anything."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> None:
        """Start the next job if the thread is free."""
        while self._waiting and not self._busy:
            # The caller whose last turn is longest ago goes first. Otherwise a caller of one call,
            # which returns once it has its tokens, would get every third turn beside one of many
            # calls.
            caller = min(self._waiting, key=lambda one: self._last_turn.get(one, 0))
            job = self._waiting[caller].popleft()
            if not self._waiting[caller]:
                del self._waiting[caller]
            if not job.outcome.done():
                self._turn(caller)
                self._busy = True
                running = asyncio.get_running_loop().run_in_executor(self._thread, job.function)
                running.add_done_callback(partial(self._finish, job))

    def _turn(self, caller: str) -> None:
        """Record a caller's turn, and forget the oldest one."""
        self._turns += 1
        self._last_turn.pop(caller, None)
        self._last_turn[caller] = self._turns
        if len(self._last_turn) > _REMEMBERED:
            del self._last_turn[next(iter(self._last_turn))]

    def _finish(self, job: "_Job[object]", done: "asyncio.Future[object]") -> None:
        self._busy = False
        if done.cancelled():
            job.outcome.cancel()
        elif not job.outcome.done():
            error = done.exception()
            if error is None:
                job.outcome.set_result(done.result())
            else:
                job.outcome.set_exception(error)
        self._next()
