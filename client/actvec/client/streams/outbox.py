"""Results on their way from a stream to its consumer."""

import asyncio
from collections import deque

from actvec.client.records.vectors import Result, Vector


class Outbox:
    """Results that have arrived and await their consumer, as they came or in document order.

    The feed's credits bound its size: they return as the consumer takes results.
    """

    def __init__(self, *, ordered: bool) -> None:
        self._ready: deque[Result] = deque()
        self._held: dict[int, Result] | None = {} if ordered else None
        self._next = 0
        self._changed = asyncio.Event()
        self._ended = False

    def put(self, result: Result) -> None:
        """Add one result; in an ordered stream it waits for those of all earlier documents."""
        if self._held is None:
            self._ready.append(result)
        else:
            self._held[result.index] = result
            while self._next in self._held:
                self._ready.append(self._held.pop(self._next))
                self._next += 1
        self._changed.set()

    def end(self) -> None:
        """Announce that no result follows."""
        self._ended = True
        self._changed.set()

    async def take(self, most: int, most_bytes: int) -> list[Result]:
        """Return results that are ready, at least one and at most `most`; empty at the end.

        Args:
            most: Maximum number of results.
            most_bytes: Bytes of vectors after which to add no more.
        """
        while not self._ready and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        batch: list[Result] = []
        size = 0
        while self._ready and len(batch) < most and size < most_bytes:
            result = self._ready.popleft()
            size += result.values.nbytes if isinstance(result, Vector) else 0
            batch.append(result)
        return batch
