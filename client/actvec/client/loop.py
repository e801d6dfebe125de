"""An event loop in a thread of its own, for programs that have none or are inside theirs."""

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from actvec.client.errors import ClientClosed, FailedPrecondition
from actvec.client.runtime import check_runtime

Returned = TypeVar("Returned")


class LoopThread:
    """Runs coroutines for other threads. Independent of any loop of the calling thread."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_report)
        self._thread = threading.Thread(target=self._run, name="actvec-client", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether coroutines can still be run."""
        return (
            self._process == os.getpid()
            and self._thread.is_alive()
            and not self._loop.is_closed()
            and not sys.is_finalizing()
        )

    def run(self, coroutine: Coroutine[Any, Any, Returned]) -> Returned:
        """The coroutine's result; an interrupt of the waiting thread cancels it.

        Raises:
            ClientClosed: the loop was stopped.
            FailedPrecondition: this process was forked from that of the loop.
        """
        try:
            self._check()
        except BaseException:
            coroutine.close()
            raise
        return self._wait(coroutine)

    def finish(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a clean-up, wherever this is called from.

        The garbage collector may call it in the loop's own thread, which must not wait for itself,
        or when the loop is gone, and with it what was to be cleaned up.
        """
        if threading.current_thread() is self._thread and self._process == os.getpid():
            self._loop.call_soon(asyncio.ensure_future, coroutine)
        elif self.running:
            self._wait(coroutine)
        else:
            coroutine.close()

    def stop(self) -> None:
        """Cancel what still runs and end the thread. May be called twice."""
        if not self.running:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _wait(self, coroutine: Coroutine[Any, Any, Returned]) -> Returned:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _check(self) -> None:
        check_runtime()
        if self._process != os.getpid():
            raise FailedPrecondition(
                "this client's thread stayed in the process that this one was forked from; make"
                " another client in this process"
            )
        if not self.running:
            raise ClientClosed("this client is closed; make another one")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # All loops of a process share gRPC's queue of events, and any of them may come upon the last
    # event of a cancelled call whose own loop is closed by then. Nobody misses it.
    if "PollerCompletionQueue" in context["message"] and isinstance(
        context.get("exception"), RuntimeError
    ):
        return
    loop.default_exception_handler(context)
