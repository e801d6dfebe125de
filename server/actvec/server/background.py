"""A server in a thread with an event loop of its own, for programs that run none."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

from actvec.server.calls.access import Access
from actvec.server.config import ServerConfig
from actvec.server.means.replica import NO_REPLICA, Replica
from actvec.server.server import Server, serve


class BackgroundServer:
    """Serves from `start` to `stop`.

    Args:
        config: What to serve, and how.
        on_failure: Is told, in the thread, of an error that ends the server after it started.
        replica: Where the data directory is shared with other machines.
    """

    def __init__(
        self,
        config: ServerConfig,
        on_failure: Callable[[Exception], None],
        replica: Replica = NO_REPLICA,
    ) -> None:
        self._config = config
        self._replica = replica
        self._on_failure = on_failure
        self._started: Future[tuple[Server, asyncio.AbstractEventLoop]] = Future()
        self._stop = asyncio.Event()
        # A daemon: an engine that hangs keeps no program alive.
        self._thread = threading.Thread(target=self._run, name="actvec-server", daemon=True)

    def start(self) -> int:
        """Load and serve; returns the port when calls are answered.

        Raises:
            StartupError: an option is not usable.
        """
        # Who may call is clear, or not, before a model is loaded.
        Access.of(self._config)
        self._thread.start()
        server, _ = self._started.result()
        return server.port

    def stop(self) -> None:
        """Drain, and end; does nothing where the server has ended already."""
        _, loop = self._started.result()
        if self._thread.is_alive():
            loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if self._started.done():
                self._on_failure(error)
            else:
                self._started.set_exception(error)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        await serve(
            self._config,
            self._stop,
            lambda server: self._started.set_result((server, loop)),
            self._replica,
        )
