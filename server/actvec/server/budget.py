"""Limits on the memory of calls, in total and per caller.

A call takes bytes from its purse before it holds them: a message, a piece of a mean. If there are
not enough, the call is refused; when it ends, for any reason, its purse returns everything.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from actvec.server.config import Limits
from actvec.server.errors import BusyError


class Budget:
    """The bytes that calls may hold.

    Args:
        limits: The limits per caller and in total.
    """

    def __init__(self, limits: Limits) -> None:
        self._caller_bytes = limits.caller_bytes
        self._memory_bytes = limits.memory_bytes
        self._held = 0
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
        """Take bytes for a call that holds `own`; one item too large for any limit passes alone."""
        held = self._of[caller]
        if held + size > self._caller_bytes and held > own:
            raise BusyError(
                f"your calls hold {held} bytes of the server's memory, this one needs "
                f"{size} more, and your limit is {self._caller_bytes}. Wait for a call "
                "to end, or read your results"
            )
        if self._held + size > self._memory_bytes and self._held > own:
            raise BusyError(
                f"calls hold {self._held} bytes of the server's memory, this one needs "
                f"{size} more, and the limit is {self._memory_bytes}. Try again in a "
                "moment"
            )
        self._held += size
        self._of[caller] += size

    def _give(self, caller: str, size: int) -> None:
        self._held -= size
        self._of[caller] -= size
        if not self._of[caller]:
            del self._of[caller]


class Purse:
    """The bytes of one call. Used on the event loop.

    Attributes:
        held: How many it holds now.
        caller: Identifies its caller.
    """

    def __init__(self, budget: Budget, caller: str) -> None:
        self.held = 0
        self.caller = caller
        self._budget = budget

    def take(self, size: int) -> None:
        """Take more bytes.

        Raises:
            BusyError: the caller, or the server, has reached its limit.
        """
        self._budget._take(self.caller, size, self.held)
        self.held += size

    def give(self, size: int) -> None:
        """Return bytes; none if the call is over, which returned all."""
        size = min(size, self.held)
        self.held -= size
        self._budget._give(self.caller, size)

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Hold bytes while the block runs.

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
    """The purse of the current call; an unlimited one outside of calls."""
    return _PURSE.get() or Purse(Budget(_UNBOUNDED), "")
