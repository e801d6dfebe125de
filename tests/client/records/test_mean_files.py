"""Files of means on slow lines: progress counts, not total time."""

import asyncio
import itertools
import socket

import numpy as np
import pytest
from safetensors.numpy import save

from actvec.client import AsyncClient, Client, ClientClosed, DeadlineExceeded
from actvec.client.transport import connection
from actvec.server.model.demo import WIDTH

# A file of 24 MB, three times as large as sockets' buffers.
POSITIONS = 48_000
MEBIBYTE = 1 << 20

names = (f"file-{number}" for number in itertools.count())


def file_of(seed):
    """A mean of the demo model's width."""
    mean = np.random.default_rng(seed).random((WIDTH, POSITIONS), np.float32)
    return save({"corpus_mean": mean})


@pytest.fixture(scope="module")
def stored(demo_server):
    """The record of a mean on the server."""
    with Client(demo_server.target) as client:
        return client.upload_mean(file_of(0), name="large")


@pytest.fixture
def line(demo_server, cutting_proxy):
    """The line to the server."""
    return cutting_proxy(demo_server.target)


@pytest.fixture
def slow_pieces(clock, monkeypatch):
    """Let each piece of a file take 20 seconds; returns how many there were."""
    taken = []

    def slowly(piece):
        taken.append(piece)
        clock.advance(20)
        return piece

    decoded, counted = connection.decoded, connection.counted
    monkeypatch.setattr(connection, "decoded", lambda piece: slowly(decoded(piece)))
    monkeypatch.setattr(
        connection, "counted", lambda pieces, progress: map(slowly, counted(pieces, progress))
    )
    return taken


def transfer_of(client, verb, mean):
    if verb == "download":
        return client.download_mean(mean.id)
    return client.upload_mean(file_of(1), name=next(names))


@pytest.mark.parametrize("verb", ["download", "upload"])
async def test_transfer_outlasts_the_timeout(line, stored, slow_pieces, verb):
    async with AsyncClient(line.target, timeout=60) as client:
        done = await transfer_of(client, verb, stored)
    assert len(slow_pieces) > 20
    assert getattr(done, "record", done).size_bytes == stored.size_bytes


async def test_late_break_of_a_download_is_retried(line, stored, slow_pieces):
    line.cut_after(int(0.9 * stored.size_bytes))
    async with AsyncClient(line.target, timeout=60) as client:
        assert (await client.download_mean("large")).record == stored
    assert len(slow_pieces) > 40
    assert line.cuts == 1


@pytest.mark.parametrize("verb", ["download", "upload"])
@pytest.mark.parametrize("after", [0, 8 * MEBIBYTE], ids=["at once", "in the middle"])
async def test_stalled_transfer_ends_at_the_timeout(line, stored, clock, verb, after):
    async with AsyncClient(line.target, timeout=60) as client:
        await client.info()
        line.hold_after(after)
        transfer = asyncio.create_task(transfer_of(client, verb, stored))
        assert await asyncio.to_thread(line.held.wait, 60)
        with pytest.raises(DeadlineExceeded, match="stood still for 60 seconds"):
            # Again if pieces still came from the line's buffers.
            while not transfer.done():
                clock.advance(61)
                await asyncio.wait({transfer}, timeout=0.01)
            await transfer


async def test_closing_the_client_ends_its_transfers(line, stored):
    async with AsyncClient(line.target) as client:
        line.hold_after(8 * MEBIBYTE)
        transfer = asyncio.create_task(client.download_mean(stored.id))
        assert await asyncio.to_thread(line.held.wait, 60)
    with pytest.raises(ClientClosed):
        await transfer


@pytest.mark.parametrize("verb", ["download", "upload"])
def test_program_takes_the_timeout(program, tmp_path, verb):
    path = tmp_path / "mean.safetensors"
    path.write_bytes(b"of some size")
    options = {"download": ("latest", "--out", path), "upload": (path, "--name", "elsewhere")}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        code, output, errors = program(
            *("mean", verb, *options[verb]), *("--timeout", 0.3, "--target", target)
        )
    assert (code, output) == (2, "")
    assert "stood still for 0.3 seconds" in errors
    assert "--timeout" in errors
