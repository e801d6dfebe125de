"""One server with an engine on each of several devices; on a CPU, several engines of one."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress

import click
import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file

from actvec.client import AsyncClient, Client
from actvec.server.config import ModelOptions, ServerConfig
from actvec.server.engine import watchdog
from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.runner import StepRunner
from actvec.server.errors import StartupError
from actvec.server.model.loading import load_model
from actvec.server.program.engines import load_engines
from actvec.server.program.options import GroupedCommand, server_config, server_options
from actvec.v1.model_pb2 import GetModelInfoRequest
from tests.server.calling import EXTRACT
from tests.server.engines import StandIn
from tests.waiting import eventually

TEXTS = [f"text {number} " + "of words " * (number % 9) for number in range(60)]


class OnDevice(StandIn):
    """A copy of an engine that counts its steps, and can fail or hang at one of them.

    Any engine may be quick enough to compute all documents. So before its second step, it waits
    until the others with which it serves have begun a step, or have come to the one that fails.

    Attributes:
        others: The engines with which it serves.
        steps: How many it has begun.
        fails_at: The step at which its device fails; it computes none after it.
        hangs_at: The step that it computes after `released` is set.
        hangs: Whether it has come so far.
    """

    begun = threading.Condition()

    def __init__(self, engine: PackedEngine) -> None:
        super().__init__(engine)
        self.others: Sequence[OnDevice] = ()
        self.steps = 0
        self.hangs = False
        self.fails_at = self.hangs_at = float("inf")
        self.released = threading.Event()

    def came(self) -> bool:
        fault = min(self.fails_at, self.hangs_at)
        return self.steps >= (fault if fault < float("inf") else 1)

    def run(self, documents: Sequence) -> list:
        with self.begun:
            self.steps += 1
            self.begun.notify_all()
        if self.steps >= self.fails_at:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        if self.steps == self.hangs_at:
            self.hangs = True
            assert self.released.wait(60)
        elif self.steps > 1:
            with self.begun:
                assert self.begun.wait_for(lambda: all(one.came() for one in self.others), 60)
        return self._engine.run(documents)


@pytest.fixture(scope="module")
def copies(demo_engine):
    return [demo_engine, *(PackedEngine(load_model(ModelOptions())) for _ in range(2))]


@pytest.fixture
def engines(copies):
    """Three engines of one model, each with weights of its own."""
    engines = [OnDevice(engine) for engine in copies]
    yield engines
    for engine in engines:
        engine.released.set()


@pytest.fixture
def hours_pass(monkeypatch):
    """A hanging step has run for hours at once, and another never takes long."""
    monkeypatch.setattr(StepRunner, "running_for", lambda runner: 1e4 * runner._engine.hangs)
    monkeypatch.setattr(watchdog, "_LOOKS", 0.02)


@pytest.fixture
def serve_on(serve):
    """Serves several engines, with steps of few documents; gives the server and its target."""

    def start(engines):
        for engine in engines:
            engine.others = [one for one in engines if one is not engine]
        return serve(engines[0], others=engines[1:], step_tokens=60)

    return start


def config_of(*arguments):
    """The configuration that these options give."""
    command = server_options(GroupedCommand("actvec-server"))
    with command.make_context("actvec-server", list(arguments)) as context:
        return server_config(context.params)


async def vectors_of(server, texts=TEXTS):
    async with AsyncClient(f"127.0.0.1:{server.port}") as client:
        found = {one.index: one.values async for one in client.stream(texts, mode="long")}
    return [found[number] for number in range(len(texts))]


async def health_of(server):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


async def mean_of(server, data_dir):
    """The sums `[N, D]` and the counts of the mean of the texts, none of which is skipped."""
    async with AsyncClient(f"127.0.0.1:{server.port}") as client:
        mean = await client.corpus_mean(TEXTS, job="job")
    assert not mean.skipped
    (file,) = (data_dir / "means").glob("*.safetensors")
    tensors = load_file(file)
    return tensors["sums"], tensors["counts"]


def assert_same_mean(found, expected):
    assert_array_equal(found[1], expected[1])
    assert_allclose(found[0], expected[0], rtol=1e-12, atol=1e-12 * np.abs(expected[0]).max())


async def test_devices_compute_the_same_bits(serve, serve_on, engines):
    async with serve(engines[0]) as (server, _):
        expected = await vectors_of(server)
    async with serve_on(engines[1:]) as (server, stub):
        found = await vectors_of(server)
        info = await stub.GetModelInfo(GetModelInfoRequest())
    assert_array_equal(found, expected)
    assert min(engine.steps for engine in engines) > 0
    assert info.device == "cpu,cpu"


async def test_a_mean_sums_all_devices(serve, serve_on, engines, tmp_path):
    async with serve(engines[0], data_dir=tmp_path / "one") as (server, _):
        expected = await mean_of(server, tmp_path / "one")
    async with serve_on(engines[1:]) as (server, _):
        assert_same_mean(await mean_of(server, tmp_path), expected)
    assert min(engine.steps for engine in engines) > 0


async def test_failing_device_is_taken_out(serve_on, engines, caplog):
    engines[1].fails_at = 3
    async with serve_on(engines) as (server, _):
        watching = asyncio.create_task(server.lost(step_timeout=600))
        found = await vectors_of(server)
        await eventually(lambda: "is taken out" in caplog.text)
        assert await health_of(server) == "SERVING"
        assert not watching.done()
        assert_array_equal(await vectors_of(server), found)
        watching.cancel()
    assert engines[1].steps == 3
    assert "cpu is taken out: the device is lost: CUDA error" in caplog.text
    assert "still serving on cpu, cpu" in caplog.text


@pytest.mark.usefixtures("hours_pass")
async def test_hanging_device_is_taken_out(serve_on, engines):
    engines[1].hangs_at = 2
    async with serve_on(engines) as (server, _):
        watching = asyncio.create_task(server.lost(step_timeout=600))
        assert len(await vectors_of(server)) == len(TEXTS)
        assert await health_of(server) == "SERVING"
        assert not server.all_well
        assert not watching.done()
        watching.cancel()
    # The end did not wait for it.
    assert not engines[1].released.is_set()


async def test_server_is_lost_with_its_last_device(serve_on, engines):
    for engine in engines:
        engine.fails_at = 2
    async with serve_on(engines) as (server, stub):
        watching = asyncio.create_task(server.lost(step_timeout=600))
        while not watching.done():
            with suppress(grpc.aio.AioRpcError):
                await stub.ExtractVector(EXTRACT)
        assert "an illegal memory access" in str(watching.result())


@pytest.mark.parametrize("fault", ["fails_at", "hangs_at"])
@pytest.mark.usefixtures("hours_pass")
async def test_a_mean_loses_nothing_with_a_device(serve, serve_on, engines, tmp_path, fault):
    async with serve(engines[0], data_dir=tmp_path / "one") as (server, _):
        expected = await mean_of(server, tmp_path / "one")
    setattr(engines[2], fault, 2)
    async with serve_on(engines[1:]) as (server, _):
        watching = asyncio.create_task(server.lost(step_timeout=600))
        assert_same_mean(await mean_of(server, tmp_path), expected)
        watching.cancel()
        assert not server.all_well


def test_program_serves_on_several_devices(start_server):
    server = start_server("--devices=cpu,cpu", "--step-tokens=60")
    with Client(server.target) as client:
        assert client.info().device == "cpu,cpu"
        assert len(list(client.stream(TEXTS, mode="short"))) == len(TEXTS)
    assert "on cpu, cpu in float32" in server.log
    assert server.stop() == 0


def test_devices_that_differ_are_refused():
    config = ServerConfig(devices=("cpu", "meta"))
    with pytest.raises(StartupError, match="meta"):
        asyncio.run(load_engines(config))


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        ("0-3", ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ("0,2", ["cuda:0", "cuda:2"]),
        ("7", ["cuda:7"]),
        ("0-1,cuda:5", ["cuda:0", "cuda:1", "cuda:5"]),
        ("cpu,cpu", ["cpu", "cpu"]),
    ],
)
def test_devices_are_named_as_operators_do(value, devices):
    assert [copy.device for copy in config_of("--devices", value).copies] == devices


@pytest.mark.parametrize(
    "value", ["", "0,0", "0-1,cuda:1", "3-1", "auto,cpu", "cpu,", "0-999999999"]
)
def test_senseless_devices_are_refused(value):
    with pytest.raises(click.BadParameter, match="is not a list of different GPUs"):
        config_of("--devices", value)


def test_one_device_excludes_several():
    with pytest.raises(click.UsageError, match="--device and --devices exclude each other"):
        config_of("--device", "cpu", "--devices", "cpu,cpu")
    assert [copy.device for copy in config_of("--device", "cuda:1").copies] == ["cuda:1"]
