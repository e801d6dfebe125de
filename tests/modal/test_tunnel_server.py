"""A worker's whole life behind a tunnel: found, used, left alone, ended, its entry gone."""

import asyncio
import gc
import logging
import math
import threading
from contextlib import asynccontextmanager

import numpy as np
import pytest

from actvec.client import AsyncClient, ServerUnavailable, TlsFiles, Unauthenticated, Waking
from actvec.client.samples import sample_corpus
from actvec.modal.announcing import announced, worker_entry
from actvec.modal.tunnel_server import Tenure, Whereabouts, serve_until_unused
from actvec.modal.worker import Worker
from actvec.server.config import AccessOptions, Limits, ModelOptions, ServerConfig
from actvec.server.errors import EngineLostError, StartupError
from actvec.v1.worker_pb2 import Worker as Entry
from tests.modal.stand_ins import LocalDeployment, LocalStart, MemoryDirectory, tls_tunnel
from tests.waiting import eventually

TOKEN = "of-the-secret"  # noqa: S105 - of the tests
TEXT = "The tide comes back twice a day, and nobody is surprised."
TENURE = Tenure(idle_seconds=600, heartbeat_seconds=0.05)


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    return Worker.load(ModelOptions(model="demo"), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def tunnel(authority):
    return tls_tunnel(authority.issue("tunnel", "127.0.0.1"))


@pytest.fixture
def config(tmp_path):
    return ServerConfig(
        port=0,
        access=AccessOptions(token=TOKEN),
        limits=Limits(idle_seconds=math.inf),
        data_dir=tmp_path,
        grace=60,
        step_timeout=math.inf,
    )


@pytest.fixture
def serving(worker, config, tunnel):
    """Serve within a block; yields the directory and the task that serves."""

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


@pytest.fixture
def unused(clock):
    """Wait until a worker ends because nobody uses it."""

    async def unused(serving):
        clock.advance(TENURE.idle_seconds)
        await asyncio.wait_for(serving, 60)

    return unused


def threads():
    """The threads of ours."""
    return [one.name for one in threading.enumerate() if one.name.startswith("actvec")]


def client_of(directory, authority, token=TOKEN, **settings):
    (found,) = directory.workers()
    target = f"https://{found.host}:{found.port}"
    return AsyncClient(target, token=token, tls=TlsFiles(ca=authority.pem), **settings)


async def test_worker_is_found_used_and_ends(serving, worker, authority, unused):
    async with serving(TENURE) as (directory, task):
        async with client_of(directory, authority) as client:
            found = [vector async for vector in client.stream(sample_corpus(), mode="short")]
        assert len(found) == len(list(sample_corpus()))
        expected = worker.get_activation_vector(TEXT)["vector"]
        async with client_of(directory, authority) as client:
            vector = await client.extract(TEXT, mode="short")
        assert np.array_equal(vector.values, np.float32(expected))
        assert not task.done()
        await unused(task)
        assert directory == {}


class ServingDeployment(LocalDeployment):
    """Starts workers that really serve, each until nobody uses it."""

    def __init__(self, serve):
        super().__init__("")
        self.serving = []
        self._serve = serve

    async def start(self, start_id):
        self.starts += 1
        self.run(start_id)
        return LocalStart(self, None)

    def run(self, start_id):
        """Run the input of a start, in its own container."""
        self.start_id = start_id
        serving = self._serve(self.directory, f"ta-{len(self.serving) + 1}", start_id)
        self.serving.append(asyncio.create_task(serving))


async def test_worker_wakes_twice(worker, config, tunnel, authority, unused):
    def serve(directory, task_id, start_id):
        where = Whereabouts(tunnel, directory, task_id, start_id)
        return serve_until_unused(worker, config, where, TENURE)

    deployment = ServingDeployment(serve)
    expected = worker.get_activation_vector(TEXT)["vector"]
    waking = Waking(30, every=0.05)
    for life in (1, 2):
        async with AsyncClient(
            deployment, token=TOKEN, tls=TlsFiles(ca=authority.pem), waking=waking
        ) as client:
            (vector,) = [made async for made in client.stream([TEXT], mode="short")]
            assert np.array_equal(vector.values, np.float32(expected))
            (entry,) = deployment.directory.workers()
            assert entry.task_id == f"ta-{life}"
        assert deployment.starts == life
        await unused(deployment.serving[-1])
        assert deployment.directory == {}


async def test_repeated_input_ends_at_once(worker, config, tunnel, authority):
    """A preempted container drains; Modal reruns its input while a client starts another worker.

    After one kill there were three workers instead of two, each an unseen cost.
    """

    def serve(directory, task_id, start_id):
        where = Whereabouts(tunnel, directory, task_id, start_id)
        return serve_until_unused(worker, config, where, TENURE)

    deployment = ServingDeployment(serve)
    async with AsyncClient(
        deployment, token=TOKEN, tls=TlsFiles(ca=authority.pem), waking=Waking(30, every=0.05)
    ) as client:
        await client.info()
        preempted = deployment.start_id
        deployment.serving[0].cancel()
        await asyncio.gather(deployment.serving[0], return_exceptions=True)
        deployment.run(preempted)
        await asyncio.wait_for(deployment.serving[1], 60)
        await client.info()
        assert deployment.starts == 2
        assert [one.task_id for one in deployment.directory.workers()] == ["ta-3"]
    deployment.serving[2].cancel()
    await asyncio.gather(deployment.serving[2], return_exceptions=True)


async def test_awaited_start_is_served_again(worker, config, tunnel):
    """Preempted before the client found it."""
    directory = MemoryDirectory()
    claim = Entry(start_id="of-a-client").SerializeToString()
    directory |= {"starting-0": Entry(start_id="of-another").SerializeToString()}
    where = Whereabouts(tunnel, directory, "ta-1", "of-a-client")
    await serve_until_unused(worker, config, where, TENURE)
    assert directory.puts == 0
    directory["starting-1"] = claim
    serving = asyncio.create_task(serve_until_unused(worker, config, where, TENURE))
    await directory.after(puts=1)
    assert directory.workers()[0].start_id == "of-a-client"
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_worker_of_an_old_deployment_drains(serving, authority):
    async with serving(TENURE) as (directory, task):
        async with client_of(directory, authority, retry_for=0) as client:
            await client.info()
            directory.deployed_anew = True
            await asyncio.wait_for(task, 60)
        assert directory == {}


async def test_nothing_of_it_stays_behind(serving, unused):
    async with serving(TENURE) as (_, task):
        await unused(task)
    gc.collect()
    await eventually(lambda: not threads())


async def test_a_worker_serves_again_after_it_ended(serving, authority, unused):
    for _ in range(2):
        async with serving(TENURE) as (directory, task):
            async with client_of(directory, authority) as client:
                assert (await client.info()).model == "demo"
            await unused(task)


async def test_its_entry_is_renewed_while_it_serves(serving):
    async with serving(TENURE) as (directory, _):
        (first,) = directory.workers()
        assert first.task_id == "ta-1"
        await directory.after(puts=3)
        (later,) = directory.workers()
        assert later.heartbeat_at.ToNanoseconds() > first.heartbeat_at.ToNanoseconds()
        assert later.started_at == first.started_at


async def test_open_stream_keeps_the_worker_awake(serving, authority, clock):
    async def slowly():
        for number in range(3):
            yield f"Text {number} comes slowly."
            await answered.wait()
            answered.clear()
            clock.advance(TENURE.idle_seconds)
            await directory.after(directory.puts + 2)

    answered = asyncio.Event()
    async with serving(TENURE) as (directory, task), client_of(directory, authority) as client:
        async for _ in client.stream(slowly(), mode="short"):
            assert not task.done()
            answered.set()
        assert not task.done()


async def test_stranger_keeps_no_gpu_awake(serving, authority, clock):
    async with serving(TENURE) as (directory, task):
        async with client_of(directory, authority, token="guessed") as client:
            for _ in range(2):
                clock.advance(0.4 * TENURE.idle_seconds)
                with pytest.raises(Unauthenticated):
                    await client.info()
        assert not task.done()
        clock.advance(0.4 * TENURE.idle_seconds)
        await asyncio.wait_for(task, 60)


async def test_cancelled_worker_drains(serving, worker, authority, monkeypatch):
    entered, go_on, run = threading.Event(), threading.Event(), worker.engine.run

    def held(documents):
        entered.set()
        assert go_on.wait(60)
        return run(documents)

    async with serving(TENURE) as (directory, task):
        monkeypatch.setattr(worker.engine, "run", held)
        async with client_of(directory, authority, retry_for=0) as client:
            results = client.stream(["One text."], mode="short")
            answer = asyncio.create_task(anext(results))
            assert await asyncio.to_thread(entered.wait, 60)
            task.cancel()
            await eventually(lambda: directory == {})
            go_on.set()
            assert (await answer).id == "0"
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_worker_in_use_ends_at_its_lifetime(serving):
    async with serving(Tenure(idle_seconds=60, lifetime_seconds=0.3)) as (directory, task):
        await asyncio.wait_for(task, 60)
        assert directory == {}


async def test_no_tunnel_is_opened_without_a_token(worker, tmp_path):
    def tunnel(_):
        pytest.fail("a tunnel was opened")

    config = ServerConfig(port=0, data_dir=tmp_path)
    with pytest.raises(StartupError, match="modal secret create actvec-token"):
        where = Whereabouts(tunnel, MemoryDirectory(), "ta-1")
        await serve_until_unused(worker, config, where, TENURE)


async def test_failed_tunnel_leaves_no_server(worker, config):
    def tunnel(_):
        raise ConnectionError("no tunnel is to be had")

    where = Whereabouts(tunnel, MemoryDirectory(), "ta-1")
    with pytest.raises(ConnectionError, match="no tunnel"):
        await serve_until_unused(worker, config, where, TENURE)
    await eventually(lambda: not threads())


async def test_lost_engine_removes_the_entry(worker, config, tunnel, authority, monkeypatch):
    directory = MemoryDirectory()
    hang = threading.Event()
    config = ServerConfig(port=0, access=config.access, data_dir=config.data_dir, step_timeout=0.3)
    serving = asyncio.create_task(
        serve_until_unused(worker, config, Whereabouts(tunnel, directory, "ta-1"), TENURE)
    )
    await directory.after(puts=1)

    def run(documents):
        hang.wait(100)
        return [RuntimeError("it hung")] * len(documents)

    monkeypatch.setattr(worker.engine, "run", run)
    async with client_of(directory, authority, retry_for=0) as client:
        with pytest.raises(ServerUnavailable):
            await client.extract(TEXT, mode="short", timeout=100)
    with pytest.raises(EngineLostError):
        await serving
    hang.set()
    assert directory == {}


async def test_failed_renewal_is_tried_again(caplog):
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
