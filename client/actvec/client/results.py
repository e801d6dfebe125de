"""What a program holds of a stream while a task runs it."""

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from actvec.client.connection import Connection
from actvec.client.streaming import VectorStream
from actvec.client.vectors import Result


class ResultStream:
    """An async iterator of a stream's results.

    The stream begins with the first result that is asked for. It ends, and what is in flight is
    cancelled, with `aclose`, with its client, or when nothing refers to this any more, as after a
    `break`. Waiting for a result may be cancelled without losing one.

    It is no async generator: those cannot be closed while one is nested in another and the event
    loop shuts down.
    """

    def __init__(
        self,
        connection: Connection,
        stream: VectorStream,
        run: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._run = run
        self._task: asyncio.Task[None] | None = None
        self._batch: deque[Result] = deque()
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        if not self._batch:
            self._batch.extend(await self.next_batch())
        if not self._batch:
            raise StopAsyncIteration
        return self._batch.popleft()

    async def next_batch(self) -> list[Result]:
        """Results that are ready, at least one; empty at the end.

        Raises:
            FailedPrecondition: the event loop is another one than at the first result.
            ActvecError: the stream cannot go on.
            Exception: whatever the documents' iterable raised.
        """
        if self._closed:
            return []
        self._connection.home.check()
        task = self._task or self._start()
        if batch := await self._stream.take():
            return batch
        await asyncio.wait({task})
        if task.cancelled():
            self._connection.raise_if_closed()
        task.result()
        return []

    async def aclose(self) -> None:
        """Cancel what is in flight, and wait for its end. May be called twice."""
        self._closed = True
        self._batch.clear()
        if self._task is not None and self._connection.home.is_there():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _start(self) -> asyncio.Task[None]:
        self._task = task = asyncio.create_task(self._run())
        self._connection.adopt(task)
        weakref.finalize(self, _abandon, asyncio.get_running_loop(), task).atexit = False
        return task


def _abandon(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    # From whatever thread the garbage collector runs in; a loop that is closed has no tasks.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_discard, task)


def _discard(task: asyncio.Task[None]) -> None:
    task.cancel()
    # Nobody is left to be told how it ended.
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
