"""Engines that fail or hang, devices that fail, and hurried ends."""

import asyncio
import signal
import threading

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safetensors.numpy import load

from actvec.client import Client, Document, ServerUnavailable
from actvec.server.engine.runner import StepRunner
from actvec.server.engine.step import StepDocument
from actvec.server.errors import EngineError
from actvec.server.model.text.tokenizer import Tokenizer
from actvec.v1.service_pb2_grpc import ActivationVectorServiceStub
from actvec.v1.vectors_pb2 import Document as DocumentMessage
from actvec.v1.vectors_pb2 import ExtractVectorRequest, StreamVectorsRequest
from tests.server.calling import EXTRACT, SHORT
from tests.server.engines import FailingEngine
from tests.waiting import wait_until


async def test_failing_engine_is_logged_once_per_step(serve, demo_engine, caplog):
    engine = FailingEngine(demo_engine, ZeroDivisionError("what nobody foresaw"))
    documents = [DocumentMessage(text="text", sequence=n) for n in range(50)]
    async with serve(engine) as (_, stub):
        request = StreamVectorsRequest(settings=SHORT, documents=documents)
        answers = [answer async for answer in stub.StreamVectors(iter([request]))]
    results = [result for answer in answers for result in answer.results]
    assert len(results) == 50
    assert {result.error.message for result in results} == {
        str(EngineError("ZeroDivisionError")),
    }
    assert 1 <= caplog.text.count("what nobody foresaw") < 10


async def test_hanging_engine_is_noticed(serve, held_engine):
    async with serve(held_engine) as (server, stub):
        watching = asyncio.create_task(server.lost(step_timeout=0.05))
        await asyncio.sleep(0.2)
        assert not watching.done()
        call = stub.ExtractVector(EXTRACT)
        error = await watching
        assert "the engine hangs: a step has been running" in str(error)
        held_engine.release()
        await call


async def test_failed_device_is_noticed_at_once(serve, demo_engine):
    fault = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    async with serve(FailingEngine(demo_engine, fault)) as (server, stub):
        watching = asyncio.create_task(server.lost(step_timeout=600))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.ExtractVector(EXTRACT)
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        error = await watching
    assert "an illegal memory access" in str(error)


def test_device_that_fails_at_a_sum_is_lost(demo_engine):
    """Kernels run on their own: a fault shows at whatever is asked of the device next."""

    class Sums:
        def add(self, *_layers):
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    runner = StepRunner(demo_engine)
    ids = np.zeros(3, dtype=np.int64)
    outcomes = runner([StepDocument.of(ids, "short", sums=Sums()), StepDocument.of(ids, "short")])
    assert {type(outcome) for outcome in outcomes} == {EngineError}
    assert runner.is_lost()


HANGING = """
import sys
import threading
import time
from actvec.server.engine.packed import PackedEngine

run = PackedEngine.run

def run_or_hang(self, documents):
    if documents[0].tokens > 600:
        print("the engine has it", file=sys.stderr, flush=True)
        threading.Event().wait()
    return run(self, documents)

PackedEngine.run = run_or_hang

from actvec.server.program.main import main
main()
"""
LONG_TEXT = "so many words " * 300


@pytest.fixture
def hanging_server(start_server):
    """Start a server whose engine hangs at documents of more than 600 tokens."""
    return lambda *options, **settings: start_server(*options, program=HANGING, **settings)


def test_server_with_a_hanging_engine_ends(hanging_server):
    server = hanging_server("--step-timeout=1")
    with grpc.insecure_channel(server.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        states = [next(watch).status]
        stub = ActivationVectorServiceStub(channel)
        call = stub.ExtractVector.future(ExtractVectorRequest(text=LONG_TEXT, settings=SHORT))
        states.append(next(watch).status)
        with pytest.raises(grpc.RpcError) as error:
            call.result(60)
    assert states == [
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    ]
    assert error.value.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert server.process.wait(30) == 70
    assert "actvec-server: the engine hangs" in server.log
    # where it hangs, for a later investigation
    assert "run_or_hang" in server.log


def test_end_keeps_to_its_grace(hanging_server):
    server = hanging_server("--grace=0.5")
    with grpc.insecure_channel(server.target) as channel:
        stub = ActivationVectorServiceStub(channel)
        hanging = stub.ExtractVector.future(ExtractVectorRequest(text=LONG_TEXT, settings=SHORT))
        wait_until(lambda: "the engine has it" in server.log)
        assert server.stop() == 1
        with pytest.raises(grpc.RpcError):
            hanging.result(30)
    assert "the shutdown was not complete after 1 seconds" in server.log


async def test_idle_server_ends_without_grace(serve):
    async with serve() as (server, stub):
        await stub.ExtractVector(EXTRACT)
        await server.stop(grace=0)


async def test_end_does_not_wait_for_tokenizing(serve, monkeypatch):
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def held(*_, **__):
        began.set()
        may_end.wait(60)
        ended.set()

    monkeypatch.setattr(Tokenizer, "__call__", held)
    try:
        async with serve() as (server, stub):
            call = stub.ExtractVector(ExtractVectorRequest(text=LONG_TEXT, settings=SHORT))
            assert await asyncio.to_thread(began.wait, 60)
            call.cancel()
            await server.stop(grace=30)
            assert not ended.is_set()
    finally:
        may_end.set()


def test_second_signal_ends_at_once(hanging_server, start_server, tmp_path):
    corpus = [Document(f"d{n}", f"text number {n}") for n in range(50)]
    server = hanging_server("--commit-seconds=0.1", data_dir=tmp_path)
    committed = threading.Event()

    def documents():
        yield from corpus
        assert committed.wait(30)
        yield Document("hangs", LONG_TEXT)
        yield Document("after", "a text")

    with Client(server.target, retry_for=0.1) as client:

        def note(progress):
            if progress.committed >= len(corpus):
                committed.set()

        def make():
            with pytest.raises(ServerUnavailable):
                client.corpus_mean(documents(), job="job", on_progress=note)

        making = threading.Thread(target=make)
        making.start()
        assert committed.wait(60)
        wait_until(lambda: "the engine has it" in server.log)
        with grpc.insecure_channel(server.target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            next(watch)
            server.process.send_signal(signal.SIGTERM)
            next(watch)
            assert server.stop() == 128 + signal.SIGTERM
        making.join()
    again = start_server(data_dir=tmp_path)
    whole = [*corpus, Document("hangs", LONG_TEXT), Document("after", "a text")]
    with Client(again.target) as client:
        record = client.corpus_mean(whole, job="job")
        counts = load(client.download_mean(record.id).content)["counts"]
    assert record.documents == counts[0] == len(whole)
