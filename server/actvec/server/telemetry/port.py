"""The port for Prometheus: one thread, however many silent connections there are."""

import asyncio
from concurrent.futures import Future
from threading import Thread

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from actvec.server.errors import StartupError

# Connections at a time; one more ends the one that has been there longest.
_CONNECTIONS = 64

# Seconds that a connection has to ask and to take its answer.
_PATIENCE = 5.0

# Bytes of a request, all of its headers.
_REQUEST_BYTES = 1 << 14


class MetricsPort:
    """Answers Prometheus over HTTP, on a thread with an event loop of its own.

    Attributes:
        port: Its number.

    Raises:
        StartupError: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._connections: dict[asyncio.Task[None], None] = {}
        self._loop = asyncio.new_event_loop()
        listening: Future[int] = Future()
        self._thread = Thread(
            target=self._run, args=(host, port, listening), name="actvec-metrics", daemon=True
        )
        self._thread.start()
        try:
            self.port = listening.result()
        except OSError as error:
            self._thread.join()
            raise StartupError(
                f"cannot serve metrics on {host}:{port}: {error.strerror}", setting="metrics_port"
            ) from error

    def close(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, host: str, port: int, listening: "Future[int]") -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(host, port, listening))

    async def _serve(self, host: str, port: int, listening: "Future[int]") -> None:
        self._stop = asyncio.Event()
        try:
            server = await asyncio.start_server(self._connected, host, port, limit=_REQUEST_BYTES)
        except OSError as error:
            listening.set_exception(error)
            return
        listening.set_result(server.sockets[0].getsockname()[1])
        async with server:
            await self._stop.wait()
            for connection in self._connections:
                connection.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - of asyncio
        if len(self._connections) >= _CONNECTIONS:
            oldest = next(iter(self._connections))
            # At once: more may come before it has ended.
            del self._connections[oldest]
            oldest.cancel()
        self._connections[task] = None
        try:
            async with asyncio.timeout(_PATIENCE):
                writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, asyncio.CancelledError):
            # The caller is gone, or never sent a request.
            writer.transport.abort()
        finally:
            self._connections.pop(task, None)

    def _answer(self, request: bytes) -> bytes:
        """The answer to a request, headers and all."""
        line, *lines = request.decode("latin-1").split("\r\n")
        method, _, rest = line.partition(" ")
        if method not in {"GET", "HEAD"} or not rest.startswith("/"):
            return _response("405 Method Not Allowed", "text/plain", b"ask with GET\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in _parted(lines)}
        encode, kind = choose_encoder(headers.get("accept", ""))
        body = encode(self._registry)
        return _response("200 OK", kind, body, send_body=method == "GET")


def _parted(lines: list[str]) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in lines]


def _response(status: str, kind: str, body: bytes, *, send_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (body if send_body else b"")
