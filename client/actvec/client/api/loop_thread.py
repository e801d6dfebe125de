"""An event loop in its own thread, for programs without one, or inside a running one."""

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from actvec.client.errors import ClientClosed, FailedPrecondition
from actvec.client.transport.runtime import check_runtime

Returned = TypeVar("Returned")


class LoopThread:
    """Runs coroutines for other threads, independently of their event loops."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_report)
        self._thread = threading.Thread(target=self._run, name="actvec-client", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it can still run coroutines."""
        return (
            self._process == os.getpid()
            and self._thread.is_alive()
            and not self._loop.is_closed()
            and not sys.is_finalizing()
        )

    def run(self, coroutine: Coroutine[Any, Any, Returned]) -> Returned:
        """Return the coroutine's result; an interrupt of the waiting thread cancels it.

        Raises:
            ClientClosed: the loop has stopped.
            FailedPrecondition: this process was forked from the loop's, or a callback calls, in the
                loop's own thread.
        """
        try:
            self._check()
        except BaseException:
            coroutine.close()
            raise
        return self._wait(coroutine)

    def finish(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a cleanup from any thread.

        The garbage collector may call this in the loop's own thread, which must not wait for
        itself, or after the loop and everything in it has ended.
        """
        if threading.current_thread() is self._thread and self._process == os.getpid():
            self._loop.call_soon(asyncio.ensure_future, coroutine)
        elif self.running:
            self._wait(coroutine)
        else:
            coroutine.close()

    def stop(self) -> None:
        """Cancel the running coroutines and end the thread. Safe to call twice."""
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
        if threading.current_thread() is self._thread:
            raise FailedPrecondition(
                "on_progress and on_wait run in the client's own thread, where a call would wait"
                " for itself; make the call in another thread, or with another client"
            )

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
    # All loops of a process share gRPC's queue of events. Any of them may receive the last event of
    # a cancelled call after the call's own loop closed; nobody needs it.
    if "PollerCompletionQueue" in context["message"] and isinstance(
        context.get("exception"), RuntimeError
    ):
        return
    loop.default_exception_handler(context)
