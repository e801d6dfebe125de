"""Results on their way from a stream to whoever consumes them."""

import asyncio
from collections import deque

from actvec.client.vectors import Result


class Outbox:
    """Results that have arrived and not yet been taken, as they came or in document order.

    Its size is bounded by the feed's credits, which are given back as results are taken.
    """

    def __init__(self, *, ordered: bool) -> None:
        self._ready: deque[Result] = deque()
        self._held: dict[int, Result] | None = {} if ordered else None
        self._next = 0
        self._changed = asyncio.Event()
        self._ended = False

    def put(self, result: Result) -> None:
        """Add one result; where ordered, it waits for those of all documents before it."""
        if self._held is None:
            self._ready.append(result)
        else:
            self._held[result.index] = result
            while self._next in self._held:
                self._ready.append(self._held.pop(self._next))
                self._next += 1
        self._changed.set()

    def end(self) -> None:
        """No result follows."""
        self._ended = True
        self._changed.set()

    async def take(self, most: int) -> list[Result]:
        """What is ready, at least one and at most `most`; empty at the end."""
        while not self._ready and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
