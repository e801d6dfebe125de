"""A server in a thread with its own event loop, for programs that run none."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

from actvec.server.access.access import Access
from actvec.server.config import ServerConfig
from actvec.server.means.replica import NO_REPLICA, Replica
from actvec.server.program.server import Server, serve


class BackgroundServer:
    """Serves from `start` to `stop`.

    Args:
        config: The server's configuration.
        on_failure: Called, in the thread, with an error that ends the server after its start.
        replica: Where to share the data directory with other machines.
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
        """Load and serve; return the port once calls are answered.

        Raises:
            StartupError: an option is unusable.
        """
        # Check access before a model is loaded.
        Access.of(self._config)
        self._thread.start()
        server, _ = self._started.result()
        return server.port

    def stop(self) -> None:
        """Drain and end; does nothing if the server has ended already."""
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
