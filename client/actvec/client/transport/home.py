"""Ties a connection to one event loop of one process."""

import asyncio
import os

from actvec.client.errors import FailedPrecondition
from actvec.client.transport.runtime import check_runtime


class Home:
    """The event loop and the process of the first call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    def check(self) -> None:
        """Hold a call to the event loop of the first one, which becomes home.

        Raises:
            FailedPrecondition: this is another event loop, or a process in which gRPC hangs.
        """
        check_runtime()
        if self._loop is None:
            self._loop, self._process = asyncio.get_running_loop(), os.getpid()
        self._check_loop(self._loop)

    def is_there(self) -> bool:
        """Whether there is anything to end at home, which was not closed or left by a fork.

        Raises:
            FailedPrecondition: this is another event loop.
        """
        loop = self._loop
        if loop is None or loop.is_closed() or self._process != os.getpid():
            return False
        self._check_loop(loop)
        return True

    def _check_loop(self, home: asyncio.AbstractEventLoop) -> None:
        if home is not asyncio.get_running_loop():
            raise FailedPrecondition(
                "an AsyncClient belongs to the event loop of its first call, and this "
                "is another loop: make a client in each event loop, inside the "
                "coroutine of asyncio.run(), or use a Client, which has a loop of its "
                "own"
            )
