"""What Modal gives a worker and its clients, on this machine: a directory and a TLS tunnel."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from hpack import Encoder
from hyperframe.frame import Frame, HeadersFrame, SettingsFrame

from actvec.client import ServerUnavailable
from actvec.server.announcement import worker_entry
from actvec.v1.worker_pb2 import Worker

from .certificates import Certificate
from .proxy import CuttingProxy


class MemoryDirectory(dict[str, bytes]):
    """A `modal.Dict`, as far as it is used."""

    def __init__(self) -> None:
        self.puts = 0
        self._put = asyncio.Event()

    async def put(self, key: str, value: bytes) -> None:
        self[key] = value
        self.puts += 1
        self._put.set()

    async def pop(self, key: str) -> None:
        dict.pop(self, key, None)

    async def after(self, puts: int) -> None:
        """Wait until something was put so many times."""
        while self.puts < puts:
            self._put.clear()
            await self._put.wait()

    def workers(self) -> list[Worker]:
        return [Worker.FromString(value) for value in self.values()]


class LocalWorker:
    """A worker that can die: its server is reached through a proxy."""

    def __init__(self, number: int, target: str) -> None:
        self.proxy = CuttingProxy(target)
        self.entry = worker_entry(f"ta-{number}", *self._address)
        self.entry.heartbeat_at.GetCurrentTime()

    @property
    def _address(self) -> tuple[str, int]:
        host, _, port = self.proxy.target.rpartition(":")
        return host, int(port)

    def die(self) -> None:
        """As one that is preempted: it answers no more, and its entry stays."""
        self.proxy.refuse()


class LocalDeployment:
    """An app on Modal. Its workers are servers that run already, handed out in turn.

    Args:
        targets: HOST:PORT of servers with TLS.
        wakes_after: Seconds from the start of a worker until it serves; None for never.
        fails: What a call of `serve` ends with instead; None for a worker that serves.
        takes: Seconds from the asking of the directory until it answers, in the middle of which it
            does what it is asked.
    """

    def __init__(
        self,
        *targets: str,
        wakes_after: float | None = 0.05,
        fails: str | None = None,
        takes: float = 0,
    ) -> None:
        self.directory = MemoryDirectory()
        self.workers: list[LocalWorker] = []
        self.starts = 0
        self.cancelled = 0
        # How often it does not answer; and how often not where an entry is to be taken away.
        self.away = 0
        self.away_at_pops = 0
        self._targets = targets
        self._wakes_after = wakes_after
        self._fails = fails
        self._takes = takes
        self._tasks: set[asyncio.Task[None]] = set()

    def __str__(self) -> str:
        return "modal://actvec"

    @property
    def claims(self) -> list[str]:
        return [key for key in self.directory if key.startswith("starting-")]

    def add(self) -> LocalWorker:
        """A worker that serves."""
        target = self._targets[len(self.workers) % len(self._targets)]
        worker = LocalWorker(len(self.workers), target)
        self.workers.append(worker)
        self.directory[worker.entry.task_id] = worker.entry.SerializeToString()
        return worker

    def age(self, worker: LocalWorker, seconds: float) -> None:
        """Let a worker's last heartbeat be so long ago."""
        worker.entry.heartbeat_at.seconds -= int(seconds)
        self.directory[worker.entry.task_id] = worker.entry.SerializeToString()

    def add_elsewhere(self, port: int, *, age: int = 0) -> None:
        """The entry, renewed so many seconds ago, of a worker whose tunnel leads elsewhere now."""
        entry = worker_entry("ta-elsewhere", "127.0.0.1", port)
        entry.heartbeat_at.GetCurrentTime()
        entry.heartbeat_at.seconds -= age
        self.directory[entry.task_id] = entry.SerializeToString()

    def close(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.proxy.close()

    async def entries(self) -> dict[str, bytes]:
        if self.away:
            self.away -= 1
            raise ServerUnavailable("Modal does not answer")
        async with self._on_its_way():
            return dict(self.directory)

    async def put(self, key: str, value: bytes, *, skip_if_exists: bool) -> bool:
        async with self._on_its_way():
            if skip_if_exists and key in self.directory:
                return False
            await self.directory.put(key, value)
            return True

    async def pop(self, key: str) -> None:
        if self.away_at_pops:
            self.away_at_pops -= 1
            raise ServerUnavailable("Modal does not answer")
        async with self._on_its_way():
            await self.directory.pop(key)

    @asynccontextmanager
    async def _on_its_way(self) -> AsyncIterator[None]:
        await asyncio.sleep(self._takes / 2)
        yield
        await asyncio.sleep(self._takes / 2)

    async def start(self) -> "LocalStart":
        self.starts += 1
        if self._wakes_after is not None and self._fails is None:
            task = asyncio.create_task(self._wake(self._wakes_after))
            self._tasks.add(task)
        return LocalStart(self, self._fails)

    async def _wake(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.add()


@dataclass(frozen=True)
class LocalStart:
    """A call of `serve`."""

    deployment: LocalDeployment
    fails: str | None

    async def error(self) -> str | None:
        return self.fails

    async def cancel(self) -> None:
        self.deployment.cancelled += 1


@dataclass(frozen=True)
class Address:
    host: str
    port: int


def tls_tunnel(certificate: Certificate) -> Callable[[int], AbstractAsyncContextManager[Address]]:
    """What `modal.forward(port, h2_enabled=True)` is: TLS with ALPN h2, the port in the clear."""

    @asynccontextmanager
    async def tunnel(port: int) -> AsyncIterator[Address]:
        carrying: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(_carry(reader, writer, port))
            carrying.add(task)
            task.add_done_callback(carrying.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls_context(certificate))
        try:
            yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for task in carrying:
                task.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)

    return tunnel


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    try:
        back, forth = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.wait(
                [
                    asyncio.create_task(_pass_on(reader, forth)),
                    asyncio.create_task(_pass_on(back, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            forth.transport.abort()
    except OSError:
        pass
    finally:
        # Not closed: that would wait for the other side's goodbye.
        writer.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def proxy_without_a_server(
    tls: ssl.SSLContext | None = None, status: int = 503
) -> AsyncIterator[int]:
    """Modal's proxy before a server that is not there: HTTP/2 with a status; gives its port."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
        writer.write(SettingsFrame(0).serialize())
        while header := await reader.read(9):
            frame, length = Frame.parse_frame_header(memoryview(header))
            await reader.readexactly(length)
            if isinstance(frame, HeadersFrame):
                block = Encoder().encode([(":status", str(status))])
                answer = HeadersFrame(frame.stream_id, block, flags=["END_HEADERS", "END_STREAM"])
                writer.write(answer.serialize())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def tls_context(certificate: Certificate) -> ssl.SSLContext:
    """TLS as a tunnel speaks it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    # Without it grpcio fails with "missing selected ALPN property".
    context.set_alpn_protocols(["h2"])
    return context
