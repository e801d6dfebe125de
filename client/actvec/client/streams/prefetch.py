"""Draws a caller's documents lazily, never further ahead than its credits allow.

A feed starts with `window` credits and draws while it has any. Each document takes its cost in
credits, and `release` returns them once its result has reached the caller, so neither documents nor
results pile up, however long the corpus. A document's cost is known only after it has been drawn,
so the last one may overdraw.
"""

import abc
import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Generic, TypeVar

from actvec.client.errors import SourceBroken

Item = TypeVar("Item")


class Prefetch(abc.ABC, Generic[Item]):
    """The source of a stream's documents.

    Attributes:
        error: The exception that ended the caller's iterable; None if it ended by itself.
    """

    def __init__(self, window: int, cost: Callable[[Item], int]) -> None:
        self.error: Exception | None = None
        self._cost = cost
        self._credits = window
        self._drawn: deque[Item] = deque()
        self._ended = False
        self._arrived = asyncio.Event()
        # Whether `_arrived` is set or about to be.
        self._told = False

    async def take(self, most: int) -> list[Item]:
        """Return documents that have been drawn, at least one and at most `most`; empty at the end.

        A cancelled wait loses nothing.
        """
        while True:
            # The order matters: the feed draws an item first, then ends, then sets the event.
            self._arrived.clear()
            self._told = False
            ended = self._ended
            if self._drawn:
                return [self._drawn.popleft() for _ in range(min(most, len(self._drawn)))]
            if ended:
                return []
            await self._arrived.wait()

    @abc.abstractmethod
    def release(self, cost: int) -> None:
        """Return the cost of documents, so that others can be drawn in their place."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stop drawing."""


def _broken(error: BaseException) -> SourceBroken:
    """Wrap an exception that is not an `Exception`: raised itself, it would end the consumer."""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return SourceBroken(f"the iterable of documents broke off: {reason}")


def open_feed(
    documents: Iterable[Item] | AsyncIterable[Item],
    window: int,
    cost: Callable[[Item], int],
) -> Prefetch[Item]:
    """Open a feed of any iterable. Needs a running event loop.

    Args:
        documents: The iterable to draw from.
        window: Credits at the start, 1 or more.
        cost: Returns the credits that an item takes, 1 or more; must not raise.
    """
    if isinstance(documents, AsyncIterable):
        return _TaskPrefetch(documents, window, cost)
    return _ThreadPrefetch(documents, window, cost)


class _ThreadPrefetch(Prefetch[Item]):
    """A feed of an iterable, drawn in its own thread so that a slow one blocks no loop.

    The thread is a daemon: a reader that never returns (a silent pipe) keeps no program alive.
    """

    def __init__(self, documents: Iterable[Item], window: int, cost: Callable[[Item], int]) -> None:
        super().__init__(window, cost)
        self._documents = documents
        self._closed = False
        self._released = threading.Condition()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._draw, name="actvec-documents", daemon=True).start()

    def release(self, cost: int) -> None:
        with self._released:
            self._credits += cost
            self._released.notify()

    def close(self) -> None:
        # Does not wait for a reader in the middle of a document.
        with self._released:
            self._closed = True
            self._released.notify()

    def _draw(self) -> None:
        try:
            iterator = iter(self._documents)
            while self._may_draw():
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                with self._released:
                    self._credits -= self._cost(item)
                self._drawn.append(item)
                self._tell()
                # Hold no reference: the item may be large, and the wait long.
                del item
        except Exception as error:  # the caller's code: its consumer raises it
            self.error = error
        except BaseException as error:  # for example `sys.exit`
            self.error = _broken(error)
        finally:
            self._ended = True
            self._told = False
            self._tell()

    def _may_draw(self) -> bool:
        """Wait for a credit; false when closed."""
        with self._released:
            self._released.wait_for(lambda: self._credits > 0 or self._closed)
            return not self._closed

    def _tell(self) -> None:
        if self._told or self._closed:
            return
        self._told = True
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the loop has closed, and with it every consumer
            self._closed = True


class _TaskPrefetch(Prefetch[Item]):
    """A feed of an async iterable, drawn in a task of the running loop."""

    def __init__(
        self, documents: AsyncIterable[Item], window: int, cost: Callable[[Item], int]
    ) -> None:
        super().__init__(window, cost)
        self._released = asyncio.Event()
        self._task = asyncio.create_task(self._draw(documents))

    def release(self, cost: int) -> None:
        self._credits += cost
        self._released.set()

    def close(self) -> None:
        self._task.cancel()

    async def _draw(self, documents: AsyncIterable[Item]) -> None:
        try:
            iterator = aiter(documents)
            while True:
                while self._credits <= 0:
                    self._released.clear()
                    await self._released.wait()
                try:
                    item = await anext(iterator)
                except StopAsyncIteration:
                    break
                self._credits -= self._cost(item)
                self._drawn.append(item)
                self._arrived.set()
                del item
        except Exception as error:  # the caller's code: its consumer raises it
            self.error = error
        except asyncio.CancelledError as error:
            # By `close`, or inside the iterable.
            self.error = _broken(error)
            raise
        finally:
            self._ended = True
            self._arrived.set()
