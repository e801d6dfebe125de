"""How many bytes calls hold in memory, of everybody and of one caller.

What a call is about to hold, it takes from its purse first: a message, a piece of a mean. If there
is not enough it is refused, and what it has taken is given back when it ends, however it ends.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from actvec.server.config import Limits
from actvec.server.errors import BusyError

# Bytes that are given back until the heap is told to give them to the system, too: while calls hold
# others, and once none does. What is made of a message, its tokens say, is freed with it uncounted.
_TIDY_BYTES, _TIDY_BYTES_IDLE = 64 << 20, 1 << 20


class Budget:
    """The bytes there are.

    Args:
        limits: How many, for one caller and for all.
        tidy: Gives freed memory back to the system; called when much was freed.
    """

    def __init__(self, limits: Limits, tidy: Callable[[], object] = lambda: None) -> None:
        self._caller_bytes = limits.caller_bytes
        self._memory_bytes = limits.memory_bytes
        self._tidy = tidy
        self._held = 0
        self._given = 0
        self._of: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """Bytes that calls hold now."""
        return self._held

    @contextmanager
    def of_call(self, caller: str) -> Iterator["Purse"]:
        """A purse for a call, which `purse` finds while the block runs."""
        mine = Purse(self, caller)
        _PURSE.set(mine)
        try:
            yield mine
        finally:
            mine.give(mine.held)

    def _take(self, caller: str, size: int, own: int) -> None:
        """Hold more for a call that holds `own` bytes; what is too large for all is taken alone."""
        held = self._of[caller]
        if held + size > self._caller_bytes and held > own:
            raise BusyError(
                f"your calls hold {held} bytes of the server's memory and this needs {size} more; "
                f"{self._caller_bytes} are yours at a time. Wait for a call to end, or read what "
                "you asked for"
            )
        if self._held + size > self._memory_bytes and self._held > own:
            raise BusyError(
                f"calls hold {self._held} bytes of the server's memory and this needs {size} more; "
                f"{self._memory_bytes} are taken at a time. Try again in a moment"
            )
        self._held += size
        self._of[caller] += size

    def _give(self, caller: str, size: int) -> None:
        self._held -= size
        self._of[caller] -= size
        if not self._of[caller]:
            del self._of[caller]
        self._given += size
        if self._given >= (_TIDY_BYTES if self._held else _TIDY_BYTES_IDLE):
            self._given = 0
            self._tidy()


class Tidying:
    """Tidies a while after it is told to, on a thread, and no more often: nobody has memory then.

    Args:
        tidy: Called on a thread.
        seconds: How long to wait, in which others may want what was freed.
    """

    def __init__(self, tidy: Callable[[], None], seconds: float = 5.0) -> None:
        self._tidy = tidy
        self._seconds = seconds
        self._due = False

    def __call__(self) -> None:
        """Tidy soon. Called on the event loop."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(self._seconds, self._begin)

    def _begin(self) -> None:
        self._due = False
        asyncio.get_running_loop().run_in_executor(None, self._tidy)


class Purse:
    """The bytes of one call. Used on the event loop.

    Attributes:
        held: How many it holds now.
        caller: What tells its caller from others.
    """

    def __init__(self, budget: Budget, caller: str) -> None:
        self.held = 0
        self.caller = caller
        self._budget = budget

    def take(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            BusyError: the caller, or the server, holds as many as it may.
        """
        self._budget._take(self.caller, size, self.held)
        self.held += size

    def give(self, size: int) -> None:
        """Hold so many fewer; nothing where the call is over and has given back all."""
        size = min(size, self.held)
        self.held -= size
        self._budget._give(self.caller, size)

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Hold so many bytes while the block runs.

        Raises:
            BusyError: as `take`.
        """
        self.take(size)
        try:
            yield
        finally:
            self.give(size)


_UNBOUNDED = Limits(caller_bytes=1 << 62, memory_bytes=1 << 62)
_PURSE: ContextVar[Purse | None] = ContextVar("purse", default=None)


def purse() -> Purse:
    """The purse of the call that runs; one without a bottom outside of calls."""
    return _PURSE.get() or Purse(Budget(_UNBOUNDED), "")
