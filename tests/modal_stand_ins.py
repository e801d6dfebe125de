"""What Modal gives a worker and its clients, on this machine: a directory and a TLS tunnel."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from actvec.v1.worker_pb2 import Worker

from .certificates import Certificate


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


@dataclass(frozen=True)
class Address:
    host: str
    port: int


def tls_tunnel(certificate: Certificate) -> Callable[[int], AbstractAsyncContextManager[Address]]:
    """What `modal.forward(port, h2_enabled=True)` is: TLS with ALPN h2, the port in the clear."""

    @asynccontextmanager
    async def tunnel(port: int) -> AsyncIterator[Address]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert, certificate.key)
        # Without it grpcio fails with "missing selected ALPN property".
        context.set_alpn_protocols(["h2"])
        carrying: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(_carry(reader, writer, port))
            carrying.add(task)
            task.add_done_callback(carrying.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
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
