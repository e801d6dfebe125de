"""A program's handle on a stream that a task runs."""

import asyncio
import contextlib
import os
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Self

from actvec.client.records.vectors import Result
from actvec.client.streams.vector_stream import VectorStream
from actvec.client.transport.connection import Connection
from actvec.client.transport.runtime import PROCESS


class ResultStream:
    """An async iterator of a stream's results.

    The stream starts with the first result requested. It ends, and cancels everything in flight,
    with `aclose`, with its client, or when nothing refers to it any more, as after a `break`. You
    may cancel a wait for a result without losing one.

    It is not an async generator: those cannot be closed while one is nested in another and the
    event loop shuts down.
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
        """Return results that are ready, at least one; empty at the end.

        Raises:
            FailedPrecondition: the first result came in another event loop.
            ActvecError: the stream cannot continue.
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
        """Cancel everything in flight and wait for its end. Safe to call twice."""
        self._closed = True
        self._batch.clear()
        if self._task is not None and self._connection.home.is_there():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _start(self) -> asyncio.Task[None]:
        self._task = task = asyncio.create_task(self._run())
        self._connection.adopt(task)
        loop = asyncio.get_running_loop()
        weakref.finalize(self, _abandon, loop, task, os.getpid()).atexit = False
        return task


def _abandon(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], process: int) -> None:
    if process != os.getpid():
        PROCESS.keep(task)
        return
    # The garbage collector may run in any thread; a closed loop has no tasks.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_discard, task)


def _discard(task: asyncio.Task[None]) -> None:
    task.cancel()
    # Nobody is left to receive the exception.
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
