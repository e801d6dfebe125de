"""Engines that fail or hang, devices that fail, and ends in a hurry."""

import asyncio
import signal
import threading
import time

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safetensors.numpy import load

from actvec.client import Client, Document, ServerUnavailable
from actvec.server.errors import EngineError
from actvec.server.tokens import Tokenizer
from actvec.v1.service_pb2_grpc import ActivationVectorServiceStub
from actvec.v1.vectors_pb2 import (
    MODE_SHORT,
    ExtractVectorRequest,
    StreamVectorsRequest,
    VectorSettings,
)
from actvec.v1.vectors_pb2 import Document as DocumentMessage

SHORT = VectorSettings(mode=MODE_SHORT)
EXTRACT = ExtractVectorRequest(text="a text", settings=SHORT)


async def test_an_engine_that_fails_is_logged_once_a_step(serve, demo_engine, caplog):
    class Failing:
        name, card = demo_engine.name, demo_engine.card
        groups = demo_engine.groups

        def run(self, _documents):
            raise ZeroDivisionError("what nobody foresaw")

    documents = [DocumentMessage(text="text", sequence=n) for n in range(50)]
    async with serve(Failing()) as (_, stub):
        request = StreamVectorsRequest(settings=SHORT, documents=documents)
        answers = [answer async for answer in stub.StreamVectors(iter([request]))]
    results = [result for answer in answers for result in answer.results]
    assert len(results) == 50
    assert {result.error.message for result in results} == {
        str(EngineError("ZeroDivisionError")),
    }
    assert 1 <= caplog.text.count("what nobody foresaw") < 10


async def test_an_engine_that_hangs_is_noticed_and_one_that_works_is_not(serve, held_engine):
    async with serve(held_engine) as (server, stub):
        watching = asyncio.create_task(server.lost(step_timeout=0.3))
        await asyncio.sleep(0.6)
        assert not watching.done()
        call = stub.ExtractVector(EXTRACT)
        error = await asyncio.wait_for(watching, 30)
        assert "the engine hangs: a step has been running" in str(error)
        held_engine.release()
        await call


async def test_a_device_that_failed_is_noticed_at_once(serve, demo_engine):
    class Failing:
        name, card = demo_engine.name, demo_engine.card
        groups = demo_engine.groups

        def run(self, _documents):
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    async with serve(Failing()) as (server, stub):
        watching = asyncio.create_task(server.lost(step_timeout=600))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.ExtractVector(EXTRACT)
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        error = await asyncio.wait_for(watching, 30)
    assert "an illegal memory access" in str(error)


HANGING = """
import sys
import threading
import time
from actvec.server.engine import PackedEngine

run = PackedEngine.run

def run_or_hang(self, documents):
    if documents[0].tokens > 600:
        print("the engine has it", file=sys.stderr, flush=True)
        threading.Event().wait()
    return run(self, documents)

PackedEngine.run = run_or_hang

from actvec.server.main import main
main()
"""
LONG_TEXT = "so many words " * 300


@pytest.fixture
def hanging_server(start_server):
    """Starts a server whose engine hangs at documents of more than 600 tokens."""
    return lambda *options, **settings: start_server(*options, program=HANGING, **settings)


def test_a_server_whose_engine_hangs_says_so_and_ends_for_its_supervisor(hanging_server):
    server = hanging_server("--step-timeout=1")
    with grpc.insecure_channel(server.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        states = [next(watch).status]
        stub = ActivationVectorServiceStub(channel)
        stub.ExtractVector(EXTRACT)
        call = stub.ExtractVector.future(ExtractVectorRequest(text=LONG_TEXT, settings=SHORT))
        states.append(next(watch).status)
        with pytest.raises(grpc.RpcError) as error:
            call.result(30)
    assert states == [
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    ]
    assert error.value.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert server.process.wait(30) == 70
    assert "actvec-server: the engine hangs" in server.log
    # where, for whoever is to find out why
    assert "run_or_hang" in server.log


def test_an_end_takes_no_longer_than_it_was_given(hanging_server):
    server = hanging_server("--grace=0.5")
    with grpc.insecure_channel(server.target) as channel:
        stub = ActivationVectorServiceStub(channel)
        hanging = stub.ExtractVector.future(ExtractVectorRequest(text=LONG_TEXT, settings=SHORT))
        while "the engine has it" not in server.log:
            time.sleep(0.01)
        assert server.stop() == 1
        with pytest.raises(grpc.RpcError):
            hanging.result(30)
    assert "not everything was done 1 seconds after the server was told to end" in server.log


async def test_without_grace_a_server_that_has_nothing_to_do_ends_in_good_order(serve):
    async with serve() as (server, stub):
        await stub.ExtractVector(EXTRACT)
        await server.stop(grace=0)


async def test_an_end_does_not_wait_for_the_tokenizing_of_what_nobody_wants_any_more(
    serve, monkeypatch
):
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def held(*_, **__):
        began.set()
        may_end.wait(10)
        ended.set()

    monkeypatch.setattr(Tokenizer, "__call__", held)
    try:
        async with serve() as (server, stub):
            call = stub.ExtractVector(ExtractVectorRequest(text=LONG_TEXT, settings=SHORT))
            await asyncio.to_thread(began.wait, 10)
            call.cancel()
            await server.stop(grace=5)
            assert not ended.is_set()
    finally:
        may_end.set()


def test_a_second_signal_ends_the_program_at_once_and_leaves_the_store_whole(
    hanging_server, start_server, tmp_path
):
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
