"""A worker's whole life behind a tunnel: found, used, left alone, ended, its entry gone."""

import asyncio
import gc
import logging
import threading
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest

from actvec.client import AsyncClient, ServerUnavailable, TlsFiles, Unauthenticated, Waking
from actvec.client.samples import sample_corpus
from actvec.server.announcement import announced, worker_entry
from actvec.server.config import AccessOptions, ModelOptions, ServerConfig
from actvec.server.errors import EngineLostError, StartupError
from actvec.server.tenure import Tenure, Whereabouts, serve_until_unused
from actvec.server.worker import Worker

from ..modal_stand_ins import LocalDeployment, LocalStart, MemoryDirectory, tls_tunnel

TOKEN = "of-the-secret"  # noqa: S105 - of the tests
TEXT = "The tide comes back twice a day, and nobody is surprised."
BRISK = Tenure(idle_seconds=0.5, heartbeat_seconds=0.05)
PATIENT = Tenure(idle_seconds=60, heartbeat_seconds=0.05)


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    return Worker.load(ModelOptions(model="demo"), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def tunnel(authority):
    return tls_tunnel(authority.issue("tunnel", "127.0.0.1"))


@pytest.fixture
def config(tmp_path):
    return ServerConfig(
        port=0, access=AccessOptions(token=TOKEN), data_dir=tmp_path, grace=5, step_timeout=60
    )


@pytest.fixture
def serving(worker, config, tunnel):
    """Serve within a block; gives the directory and the task that serves."""

    @asynccontextmanager
    async def serve(tenure):
        directory = MemoryDirectory()
        task = asyncio.create_task(
            serve_until_unused(worker, config, Whereabouts(tunnel, directory, "ta-1"), tenure)
        )
        await directory.after(puts=1)
        try:
            yield directory, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return serve


def client_of(directory, authority, token=TOKEN, **settings):
    (found,) = directory.workers()
    target = f"https://{found.host}:{found.port}"
    return AsyncClient(target, token=token, tls=TlsFiles(ca=authority.pem), **settings)


async def test_it_is_found_streams_through_the_tunnel_idles_out_and_takes_its_entry_away(
    serving, worker, authority
):
    async with serving(BRISK) as (directory, task):
        async with client_of(directory, authority) as client:
            found = [vector async for vector in client.stream(sample_corpus(), mode="short")]
        assert len(found) == len(list(sample_corpus()))
        expected = worker.get_activation_vector(TEXT)["vector"]
        async with client_of(directory, authority) as client:
            vector = await client.extract(TEXT, mode="short")
        assert np.array_equal(vector.values, expected)
        await asyncio.wait_for(task, 30)
        assert directory == {}


class ServingDeployment(LocalDeployment):
    """Starts workers that really serve, each until nobody uses it."""

    def __init__(self, serve):
        super().__init__("")
        self.serving = []
        self._serve = serve

    async def start(self):
        self.starts += 1
        serving = self._serve(self.directory, f"ta-{self.starts}")
        self.serving.append(asyncio.create_task(serving))
        return LocalStart(self, None)


async def test_its_whole_life_is_asleep_woken_found_used_left_alone_and_woken_again(
    worker, config, tunnel, authority
):
    def serve(directory, task_id):
        where = Whereabouts(tunnel, directory, task_id)
        return serve_until_unused(worker, config, where, BRISK)

    deployment = ServingDeployment(serve)
    expected = worker.get_activation_vector(TEXT)["vector"]
    waking = Waking(30, every=0.05)
    for life in (1, 2):
        async with AsyncClient(
            deployment, token=TOKEN, tls=TlsFiles(ca=authority.pem), waking=waking
        ) as client:
            (vector,) = [made async for made in client.stream([TEXT], mode="short")]
            assert np.array_equal(vector.values, expected)
            (entry,) = deployment.directory.workers()
            assert entry.task_id == f"ta-{life}"
        assert deployment.starts == life
        await asyncio.wait_for(deployment.serving[-1], 30)
        assert deployment.directory == {}


async def test_nothing_of_it_stays_behind(serving):
    async with serving(BRISK) as (_, task):
        await asyncio.wait_for(task, 30)
    gc.collect()
    await asyncio.sleep(0.1)
    ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("actvec")]
    assert ours == []


async def test_a_worker_serves_again_after_it_ended(serving, authority):
    for _ in range(2):
        async with serving(BRISK) as (directory, task):
            async with client_of(directory, authority) as client:
                assert (await client.info()).model == "demo"
            await asyncio.wait_for(task, 30)


async def test_its_entry_is_renewed_while_it_serves(serving):
    async with serving(PATIENT) as (directory, _):
        (first,) = directory.workers()
        assert first.task_id == "ta-1"
        await directory.after(puts=3)
        (later,) = directory.workers()
        assert later.heartbeat_at.ToNanoseconds() > first.heartbeat_at.ToNanoseconds()
        assert later.started_at == first.started_at


async def test_a_stream_that_is_open_keeps_it_awake(serving, authority):
    async def slowly():
        for number in range(3):
            yield f"Text {number} comes slowly."
            await asyncio.sleep(0.6)

    async with serving(BRISK) as (directory, task), client_of(directory, authority) as client:
        async for _ in client.stream(slowly(), mode="short"):
            assert not task.done()


async def test_a_stranger_without_the_token_keeps_no_gpu_awake(serving, authority):
    async with serving(BRISK) as (directory, task):
        refused = 0
        began = time.monotonic()
        async with client_of(directory, authority, token="guessed") as client:
            while not task.done() and time.monotonic() < began + 30:
                with pytest.raises((Unauthenticated, ServerUnavailable)) as caught:
                    await client.info(timeout=0.5)
                refused += caught.type is Unauthenticated
        assert refused > 1
        await task


async def test_a_cancelled_worker_drains_and_takes_its_entry_away(serving, authority):
    async with serving(PATIENT) as (directory, task):
        async with client_of(directory, authority, retry_for=0) as client:
            results = client.stream(["One text.", "Another text."], mode="short", ordered=True)
            assert (await anext(results)).id == "0"
            task.cancel()
            assert (await anext(results)).id == "1"
        with pytest.raises(asyncio.CancelledError):
            await task
        assert directory == {}


async def test_a_worker_in_use_ends_in_order_when_its_time_is_over(serving):
    async with serving(Tenure(idle_seconds=60, lifetime_seconds=0.3)) as (directory, task):
        await asyncio.wait_for(task, 30)
        assert directory == {}


async def test_no_tunnel_is_opened_without_a_token(worker, tmp_path):
    def tunnel(_):
        pytest.fail("a tunnel was opened")

    config = ServerConfig(port=0, data_dir=tmp_path)
    with pytest.raises(StartupError, match="modal secret create actvec-token"):
        where = Whereabouts(tunnel, MemoryDirectory(), "ta-1")
        await serve_until_unused(worker, config, where, BRISK)


async def test_a_tunnel_that_does_not_open_leaves_no_server_behind(worker, config):
    def tunnel(_):
        raise ConnectionError("no tunnel is to be had")

    where = Whereabouts(tunnel, MemoryDirectory(), "ta-1")
    with pytest.raises(ConnectionError, match="no tunnel"):
        await serve_until_unused(worker, config, where, BRISK)
    await asyncio.sleep(0.1)
    ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("actvec")]
    assert ours == []


async def test_a_lost_engine_ends_it_with_an_error_and_without_an_entry(
    worker, config, tunnel, authority, monkeypatch
):
    directory = MemoryDirectory()
    hang = threading.Event()
    config = ServerConfig(port=0, access=config.access, data_dir=config.data_dir, step_timeout=0.3)
    serving = asyncio.create_task(
        serve_until_unused(worker, config, Whereabouts(tunnel, directory, "ta-1"), PATIENT)
    )
    await directory.after(puts=1)

    def run(documents):
        hang.wait(20)
        return [RuntimeError("it hung")] * len(documents)

    monkeypatch.setattr(worker.engine, "run", run)
    async with client_of(directory, authority, retry_for=0) as client:
        with pytest.raises(ServerUnavailable):
            await client.extract(TEXT, mode="short", timeout=10)
    with pytest.raises(EngineLostError):
        await serving
    hang.set()
    assert directory == {}


async def test_a_renewal_that_fails_is_logged_and_tried_again(caplog):
    class Unsteady(MemoryDirectory):
        async def put(self, key, value):
            await super().put(key, value)
            if self.puts == 2:
                raise ConnectionError("the directory is away")

    directory = Unsteady()
    with caplog.at_level(logging.ERROR):
        async with announced(directory, worker_entry("ta-1", "h", 1), 0.01):
            await directory.after(puts=4)
    assert "cannot renew the entry of this worker" in caplog.text
    assert directory == {}
