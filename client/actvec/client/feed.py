"""Draws a caller's documents, lazily: never more ahead than have been given back.

A feed holds `window` credits and draws while it has any. Each document drawn takes what it costs,
`release` gives that back once its result has reached the caller, and so neither documents nor
results pile up, however long the corpus. What a document costs is known only when it has been
drawn, so the last one may overdraw.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Generic, Protocol, TypeVar

from actvec.client.errors import SourceBroken

Item = TypeVar("Item")


class Feed(Protocol[Item]):
    """Where a stream takes its documents from.

    Attributes:
        error: What the caller's iterable raised, which ended it; None where it ended by itself.
    """

    error: Exception | None

    async def take(self, most: int) -> list[Item]:
        """What has been drawn, at least one and at most `most`; empty at the end.

        Nothing is lost where the wait is cancelled.
        """

    def release(self, cost: int) -> None:
        """Give back what documents have cost, so that others are drawn in their place."""

    def close(self) -> None:
        """Draw no more."""


def _one(_: object) -> int:
    return 1


def _broken(error: BaseException) -> SourceBroken:
    """What stands for an end that is no `Exception`: raised as it is, it would end the consumer."""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return SourceBroken(f"the documents' iterable did not come to its end: {reason}")


def open_feed(
    documents: Iterable[Item] | AsyncIterable[Item],
    window: int,
    cost: Callable[[Item], int] = _one,
) -> Feed[Item]:
    """A feed of any iterable. Needs a running event loop.

    Args:
        documents: What is drawn.
        window: Credits to begin with, 1 or more.
        cost: The credits that an item takes, 1 or more; must not raise.
    """
    if isinstance(documents, AsyncIterable):
        return TaskFeed(documents, window, cost)
    return ThreadFeed(documents, window, cost)


class ThreadFeed(Generic[Item]):
    """A feed of an iterable, drawn in a thread of its own so that a slow one blocks no loop.

    The thread is a daemon: a reader that never returns (a silent pipe) keeps no program alive.
    """

    def __init__(
        self, documents: Iterable[Item], window: int, cost: Callable[[Item], int] = _one
    ) -> None:
        self.error: Exception | None = None
        self._documents = documents
        self._cost = cost
        self._drawn: deque[Item] = deque()
        self._ended = False
        self._closed = False
        self._credits = window
        self._released = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._told = False
        threading.Thread(target=self._draw, name="actvec-documents", daemon=True).start()

    async def take(self, most: int) -> list[Item]:
        """See `Feed.take`."""
        while True:
            # In this order: the thread appends before it ends, and appends before it tells.
            self._arrived.clear()
            self._told = False
            ended = self._ended
            if self._drawn:
                count = min(most, len(self._drawn))
                return [self._drawn.popleft() for _ in range(count)]
            if ended:
                return []
            await self._arrived.wait()

    def release(self, cost: int) -> None:
        """See `Feed.release`."""
        with self._released:
            self._credits += cost
            self._released.notify()

    def close(self) -> None:
        """See `Feed.close`; does not wait for a reader that is in the middle of a document."""
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
                # Held no longer than by whoever takes it: it may be large, and the wait long.
                del item
        except Exception as error:  # the caller's code: raised where it is consumed
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
        except RuntimeError:  # the loop is gone, and with it whoever would care
            self._closed = True


class TaskFeed(Generic[Item]):
    """A feed of an async iterable, drawn in a task of the running loop."""

    def __init__(
        self, documents: AsyncIterable[Item], window: int, cost: Callable[[Item], int] = _one
    ) -> None:
        self.error: Exception | None = None
        self._cost = cost
        self._drawn: deque[Item] = deque()
        self._ended = False
        self._credits = window
        self._released = asyncio.Event()
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._draw(documents))

    async def take(self, most: int) -> list[Item]:
        """See `Feed.take`."""
        while not self._drawn and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        count = min(most, len(self._drawn))
        return [self._drawn.popleft() for _ in range(count)]

    def release(self, cost: int) -> None:
        """See `Feed.release`."""
        self._credits += cost
        self._released.set()

    def close(self) -> None:
        """See `Feed.close`; cancels the iterable where it waits."""
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
        except Exception as error:  # the caller's code: raised where it is consumed
            self.error = error
        except asyncio.CancelledError as error:
            # By `close`, or of something that the iterable waited for.
            self.error = _broken(error)
            raise
        finally:
            self._ended = True
            self._arrived.set()
