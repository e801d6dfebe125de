"""A thread that callers use in turns, so that nobody waits for all that another has to do."""

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

# Callers whose last turn is known.
_REMEMBERED = 1000

# The niceness of a thread that steps aside: a tenth of the time that others have.
_ASIDE = 10


def _step_aside() -> None:
    """Have this thread yield to others of the machine."""
    # Elsewhere than on Linux the priority is the process's.
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
        name: Of the thread.
        aside: Whether it computes only with what other threads leave, where the system tells
            threads apart: for work of seconds, beside which small calls are answered.
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
        """What the function returns or raises, called on the thread in the caller's turn."""
        job = _Job(function)
        self._waiting.setdefault(caller, deque()).append(job)  # type: ignore[arg-type]
        self._next()
        return await job.outcome

    def close(self) -> None:
        """End the thread; nothing is waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> None:
        """Begin the next job where the thread is free."""
        while self._waiting and not self._busy:
            # Whose last turn is the longest ago: a caller of one call, which comes back when it has
            # its tokens, would else have every third turn beside one of many calls.
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
        """Note that it is a caller's turn; those of long ago are forgotten."""
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
