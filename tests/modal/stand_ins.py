"""Stand-ins on this machine for Modal's directory and TLS tunnel."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from hpack import Encoder
from hyperframe.frame import Frame, HeadersFrame, SettingsFrame

from actvec.client import ServerUnavailable
from actvec.modal.announcing import worker_entry
from actvec.v1.worker_pb2 import Worker
from tests.certificates import Certificate
from tests.proxy import CuttingProxy


class MemoryDirectory(dict[str, bytes]):
    """A `modal.Dict`, as far as it is used."""

    def __init__(self) -> None:
        self.puts = 0
        self.on_pop: Callable[[str], object] = lambda _key: None
        self.deployed_anew = False
        self._put = asyncio.Event()

    async def entries(self) -> dict[str, bytes]:
        return dict(self)

    async def superseded(self) -> bool:
        return self.deployed_anew

    async def put(self, key: str, value: bytes) -> None:
        self[key] = value
        self.puts += 1
        self._put.set()

    async def pop(self, key: str) -> None:
        dict.pop(self, key, None)
        self.on_pop(key)

    async def after(self, puts: int) -> None:
        """Wait for a number of puts."""
        while self.puts < puts:
            self._put.clear()
            await self._put.wait()

    def workers(self) -> list[Worker]:
        entries = [Worker.FromString(value) for value in self.values()]
        return [entry for entry in entries if entry.host]


class LocalWorker:
    """A worker that can die: its server is behind a proxy."""

    def __init__(self, number: int, target: str, start_id: str) -> None:
        self.proxy = CuttingProxy(target)
        self.entry = worker_entry(f"ta-{number}", *self._address, start_id)
        self.entry.heartbeat_at.GetCurrentTime()

    @property
    def _address(self) -> tuple[str, int]:
        host, _, port = self.proxy.target.rpartition(":")
        return host, int(port)

    def die(self) -> None:
        """Die like a preempted worker: it stops answering, and its entry stays."""
        self.proxy.refuse()


class LocalDeployment:
    """An app on Modal. Its workers are running servers, handed out in turn.

    Args:
        targets: HOST:PORT of servers with TLS.
        wakes_after: Seconds from the start of a worker until it serves, or the event upon which it
            does; None for never. A sequence gives one value per start; its last value applies to
            all further starts.
        fails: The error of a call of `serve`; None for a worker that serves.
        takes: Seconds that the directory takes to answer; it acts in the middle of them.
    """

    def __init__(
        self,
        *targets: str,
        wakes_after: float | asyncio.Event | Sequence[float | asyncio.Event] | None = 0.05,
        fails: str | None = None,
        takes: float = 0,
    ) -> None:
        self.directory = MemoryDirectory()
        self.workers: list[LocalWorker] = []
        self.starts = 0
        self.cancelled = 0
        # How often it does not answer; and how often it fails to remove an entry.
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

    def add(self, start_id: str = "") -> LocalWorker:
        """Add a worker that serves."""
        target = self._targets[len(self.workers) % len(self._targets)]
        worker = LocalWorker(len(self.workers), target, start_id)
        self.workers.append(worker)
        self.directory[worker.entry.task_id] = worker.entry.SerializeToString()
        return worker

    def age(self, worker: LocalWorker, seconds: float) -> None:
        """Move a worker's last heartbeat into the past."""
        worker.entry.heartbeat_at.seconds -= int(seconds)
        self.directory[worker.entry.task_id] = worker.entry.SerializeToString()

    def add_elsewhere(self, port: int) -> None:
        """Add the entry of a worker whose tunnel now leads elsewhere."""
        entry = worker_entry("ta-elsewhere", "127.0.0.1", port)
        entry.heartbeat_at.GetCurrentTime()
        self.directory[entry.task_id] = entry.SerializeToString()

    def close(self) -> None:
        for worker in self.workers:
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

    async def start(self, start_id: str) -> "LocalStart":
        after = self._wakes_after
        if isinstance(after, Sequence):
            after = after[min(self.starts, len(after) - 1)]
        self.starts += 1
        if after is not None and self._fails is None:
            task = asyncio.create_task(self._wake(after, start_id))
            self._tasks.add(task)
        return LocalStart(self, self._fails)

    async def all_awake(self) -> None:
        """Wait until each started worker serves."""
        await asyncio.gather(*self._tasks)

    async def _wake(self, after: float | asyncio.Event, start_id: str) -> None:
        await (after.wait() if isinstance(after, asyncio.Event) else asyncio.sleep(after))
        self.add(start_id)


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
    """Act as `modal.forward(port, h2_enabled=True)`: TLS with ALPN h2, the port without TLS."""

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
    tls: ssl.SSLContext | None = None, status: int = 503, delay: float = 0
) -> AsyncIterator[int]:
    """Modal's proxy before a missing server: HTTP/2 with a status; yields its port."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
        writer.write(SettingsFrame(0).serialize())
        while header := await reader.read(9):
            frame, length = Frame.parse_frame_header(memoryview(header))
            await reader.readexactly(length)
            if isinstance(frame, HeadersFrame):
                block = Encoder().encode([(":status", str(status))])
                answer = HeadersFrame(frame.stream_id, block, flags=["END_HEADERS", "END_STREAM"])
                await asyncio.sleep(delay)
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
