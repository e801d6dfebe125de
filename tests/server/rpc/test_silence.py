"""Silent connections keep no other caller out."""

import asyncio
import contextlib
import errno
import resource
import socket
import threading
import urllib.request

import grpc
import pytest

from actvec.server.config import WatchOptions
from actvec.server.errors import MeanCorruptError, StartupError, StorageError
from actvec.server.files import storing
from actvec.server.rpc.open_files import OWN_FILES, allow_connections
from actvec.server.rpc.status import status_of
from actvec.server.telemetry import port as metrics_port
from actvec.v1.service_pb2_grpc import ActivationVectorServiceStub
from tests.server.calling import EXTRACT


@pytest.fixture
def file_limits(monkeypatch):
    """Limits of open files that only `open_files` sees: `file_limits(soft, hard)`."""
    now = []

    def between(soft, hard):
        now[:] = [soft, hard]
        monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(now))
        monkeypatch.setattr(resource, "setrlimit", lambda _, both: now.__setitem__(slice(2), both))
        return now

    return between


@pytest.mark.parametrize(
    ("limits", "asked", "connections", "raised"),
    [
        ((1024, 1 << 20), None, 4096, 4096 + OWN_FILES),
        ((1024, 1 << 20), 10_000, 10_000, 10_000 + OWN_FILES),
        ((1 << 16, 1 << 20), 300, 300, 1 << 16),
        ((1024, 1024), None, 1024 - OWN_FILES, 1024),
        ((512, 1024), None, 1024 - OWN_FILES, 1024),
        ((256, resource.RLIM_INFINITY), 4096, 4096, 4096 + OWN_FILES),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None, 4096, resource.RLIM_INFINITY),
    ],
)
def test_the_soft_limit_is_raised_as_needed(file_limits, limits, asked, connections, raised):
    now = file_limits(*limits)
    assert allow_connections(asked) == connections
    assert now[0] == raised


def test_connections_that_do_not_fit_are_refused(file_limits):
    file_limits(1024, 1024)
    message = "1000 connections need 1256 open files, .* may have 1024, enough for 768"
    with pytest.raises(StartupError, match=message):
        allow_connections(1000)
    assert allow_connections(768) == 768
    file_limits(100, 100)
    with pytest.raises(StartupError, match="may have 100"):
        allow_connections(None)


async def test_server_without_spare_files_does_not_start(serve, file_limits):
    file_limits(1024, 1024)
    with pytest.raises(StartupError, match="enough for 768"):
        async with serve(connections=2000):
            pass


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_scarcity_is_unavailable_whatever_it_hit(number):
    scarce = OSError(number, "too many")
    corrupt = MeanCorruptError("cannot be read")
    corrupt.__cause__ = scarce
    with pytest.raises(StorageError) as storage, storing("a checkpoint"):
        raise scarce
    for error in (scarce, corrupt, storage.value):
        assert status_of(error).code is grpc.StatusCode.UNAVAILABLE
        assert "too many" in status_of(error).message
    with pytest.raises(StorageError) as broken, storing("a checkpoint"):
        raise OSError(errno.EIO, "broken")
    assert status_of(broken.value).code is grpc.StatusCode.INTERNAL


# The preface of HTTP/2, and empty settings.
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def silent_connection(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def is_cut(connection: socket.socket) -> bool:
    """Whether the other side ends a connection, perhaps after sending something."""
    connection.settimeout(60)
    with contextlib.suppress(ConnectionError):
        while connection.recv(1 << 12):
            pass
    return True


@pytest.mark.parametrize(
    "said",
    [b"", b"PRI * HT", GREETING],
    ids=["nothing", "half", "a greeting"],
)
async def test_a_connection_without_a_call_is_cut(serve, said):
    async with serve(silent_seconds=0.1, connections=1) as (server, _):
        with silent_connection(server) as silent:
            silent.sendall(said)
            assert await asyncio.to_thread(is_cut, silent)
        # Its place is free: the server greets another.
        greeted = b""
        while not greeted:
            with silent_connection(server) as other, contextlib.suppress(ConnectionError):
                other.sendall(GREETING)
                greeted = await asyncio.to_thread(other.recv, 64)


async def test_a_call_outlasts_the_silence(serve, held_engine):
    async with (
        serve(held_engine, silent_seconds=3) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = ActivationVectorServiceStub(channel)
        call = stub.ExtractVector(EXTRACT)
        await held_engine.entered()
        # It came later, and is cut.
        with silent_connection(server) as silent:
            assert await asyncio.to_thread(is_cut, silent)
        held_engine.release()
        assert (await call).vector.tokens
        while (state := channel.get_state()) is grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(state)
        # Over another connection, which the client opens by itself.
        assert (await stub.ExtractVector(EXTRACT)).vector.tokens


def scraped(server) -> str:
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


def own_threads() -> int:
    """How many there are, without those in which event loops call what may wait."""
    return sum(not thread.name.startswith("asyncio") for thread in threading.enumerate())


async def test_metrics_take_one_thread(serve, monkeypatch):
    monkeypatch.setattr(metrics_port, "_CONNECTIONS", 8)
    monkeypatch.setattr(metrics_port, "_PATIENCE", 600)
    async with serve(watch=WatchOptions(metrics_port=0)) as (server, _):
        threads = own_threads()
        with contextlib.ExitStack() as stack:
            silent = [
                stack.enter_context(socket.create_connection(("127.0.0.1", server.metrics_port)))
                for _ in range(40)
            ]
            assert "actvec_calls_total" in await asyncio.to_thread(scraped, server)
            assert own_threads() <= threads
            for connection in silent[:32]:
                assert await asyncio.to_thread(is_cut, connection)


async def test_a_silent_scraper_is_cut(serve, monkeypatch):
    async with serve(watch=WatchOptions(metrics_port=0)) as (server, _):
        with monkeypatch.context() as hurried:
            hurried.setattr(metrics_port, "_PATIENCE", 0.1)
            for said in (b"", b"GET /metrics HTTP/1.1\r\nHost:", b"x" * (1 << 15)):
                with socket.create_connection(("127.0.0.1", server.metrics_port)) as silent:
                    silent.sendall(said)
                    assert await asyncio.to_thread(is_cut, silent)
        assert "actvec_calls_total" in await asyncio.to_thread(scraped, server)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [("HEAD /metrics", "200"), ("POST /metrics", "405"), ("nonsense", "405")],
)
async def test_metrics_answer_get_and_head(serve, request_line, status):
    async with serve(watch=WatchOptions(metrics_port=0)) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.metrics_port)
        writer.write(f"{request_line} HTTP/1.1\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.endswith(b"\r\n\r\n") == (status == "200")
