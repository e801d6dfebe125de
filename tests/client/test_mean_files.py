"""Files of means on slow lines: what counts is whether they come on, not how long they take."""

import asyncio
import itertools
import socket
import time

import numpy as np
import pytest
from safetensors.numpy import save

from actvec.client import AsyncClient, Client, ClientClosed, DeadlineExceeded
from actvec.server.demo import WIDTH

# A line that passes eight chunks a second. The file is of three times as much as sockets take in
# ahead of it, and is on its way for longer than any timeout here.
BYTES_PER_SECOND = 8 << 20
POSITIONS = 48_000

names = (f"file-{number}" for number in itertools.count())


def file_of(seed):
    """A mean of the demo model's width, 24 MB."""
    mean = np.random.default_rng(seed).random((WIDTH, POSITIONS), np.float32)
    return save({"corpus_mean": mean})


@pytest.fixture(scope="module")
def stored(demo_server):
    """The record of a mean on the server."""
    with Client(demo_server.target) as client:
        return client.upload_mean(file_of(0), name="large")


@pytest.fixture
def slow(demo_server, cutting_proxy):
    """The slow line to the server."""
    proxy = cutting_proxy(demo_server.target)
    proxy.throttle(BYTES_PER_SECOND)
    return proxy


def transfer_of(client, verb, mean):
    if verb == "download":
        return client.download_mean(mean.id)
    return client.upload_mean(file_of(1), name=next(names))


@pytest.mark.parametrize("verb", ["download", "upload"])
async def test_a_transfer_may_take_longer_than_the_timeout_while_it_comes_on(slow, stored, verb):
    began = time.monotonic()
    async with AsyncClient(slow.target, timeout=2) as client:
        done = await transfer_of(client, verb, stored)
    assert time.monotonic() - began > 2.5
    assert getattr(done, "record", done).size_bytes == stored.size_bytes


async def test_a_download_that_breaks_after_longer_than_the_timeout_is_tried_again(slow, stored):
    slow.cut_after(int(0.9 * stored.size_bytes))
    began = time.monotonic()
    async with AsyncClient(slow.target, timeout=1) as client:
        assert (await client.download_mean("large")).record == stored
    assert time.monotonic() - began > 4
    assert slow.cuts == 1


@pytest.mark.parametrize("verb", ["download", "upload"])
@pytest.mark.parametrize("after", [0, 0.5])
async def test_a_transfer_that_stands_still_is_given_up_at_the_timeout(slow, stored, verb, after):
    async with AsyncClient(slow.target, timeout=1) as client:
        await client.info()
        transfer = asyncio.create_task(transfer_of(client, verb, stored))
        await asyncio.sleep(after)
        assert not transfer.done()
        slow.stall(5)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"stood still for 1 second.*\(--timeout, "):
            await transfer
        assert time.monotonic() - began < 3


async def test_closing_the_client_ends_its_transfers(slow, stored):
    async with AsyncClient(slow.target) as client:
        transfer = asyncio.create_task(client.download_mean(stored.id))
        await asyncio.sleep(0.5)
    with pytest.raises(ClientClosed):
        await transfer


@pytest.mark.parametrize("verb", ["download", "upload"])
def test_the_program_takes_the_timeout_and_says_so_where_it_was_too_short(program, tmp_path, verb):
    path = tmp_path / "mean.safetensors"
    path.write_bytes(b"of some size")
    options = {"download": ("latest", "--out", path), "upload": (path, "--name", "elsewhere")}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        code, output, errors = program(
            *("mean", verb, *options[verb]), *("--timeout", 0.3, "--target", target)
        )
    assert time.monotonic() - began < 5
    assert (code, output) == (2, "")
    assert "stood still for 0.3 seconds" in errors
    assert "--timeout" in errors
