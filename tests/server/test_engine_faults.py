"""Memory that ends, engines that hang, devices that fail, and ends in a hurry."""

import asyncio
import dataclasses
import signal
import threading
import time

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load

from actvec.client import Client, Document, ServerUnavailable
from actvec.server.errors import DoesNotFitError, EngineError
from actvec.server.pooler import pool_step
from actvec.server.runner import StepRunner
from actvec.server.step import DeviceSums, StepDocument
from actvec.v1 import means_pb2
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


class SmallEngine:
    """An engine whose memory ends at a number of tokens a step."""

    def __init__(self, engine, tokens, error=torch.OutOfMemoryError):
        self.name, self.card = engine.name, engine.card
        self.steps = []
        self._engine, self._tokens, self._error = engine, tokens, error

    def run(self, documents):
        tokens = sum(document.tokens for document in documents)
        self.steps.append(tokens)
        if tokens > self._tokens:
            raise self._error("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return self._engine.run(documents)


class PoolingEngine:
    """Pools and sums states that are functions of the ids: all of an engine but the model."""

    name, card, width = "pooling", None, 4

    def run(self, documents):
        ids = torch.from_numpy(np.concatenate([document.ids for document in documents]))
        states = ids.float()[:, None] * torch.arange(1, self.width + 1)
        return pool_step([states], [0], documents)


def documents_of(lengths, **settings):
    return [StepDocument(np.arange(length) % 200, **settings) for length in lengths]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_a_step_that_does_not_fit_is_halved_until_it_does(demo_engine, error):
    documents = documents_of([30, 40, 50, 60, 70])
    engine = SmallEngine(demo_engine, 100, error)
    reports = []
    outcomes = StepRunner(engine, reports.append)(documents)
    for outcome, expected in zip(outcomes, demo_engine.run(documents), strict=True):
        assert_array_equal(outcome, expected)
    assert max(engine.steps) == 250
    (report,) = reports
    assert report.tokens == 250
    assert report.splits >= 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 80))
def test_only_documents_that_do_not_fit_alone_fail(lengths, memory):
    outcomes = StepRunner(SmallEngine(PoolingEngine(), memory))(documents_of(lengths))
    assert len(outcomes) == len(lengths)
    for length, outcome in zip(lengths, outcomes, strict=True):
        assert isinstance(outcome, DoesNotFitError) == (length > memory)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=10),
    st.integers(10, 60),
    st.sets(st.integers(0, 20)),
)
def test_a_document_is_summed_once_wherever_memory_ends(lengths, memory, failures):
    """In the forward pass, and in the sums themselves."""

    class Sums(DeviceSums):
        calls = 0

        def add(self, states):
            self.calls += 1
            if self.calls in failures:
                raise torch.OutOfMemoryError("no memory for the sums")
            super().add(states)

    engine = PoolingEngine()
    sums = Sums(engine.width, "cpu", variance=True)
    documents = documents_of(lengths, sums=sums)
    outcomes = StepRunner(SmallEngine(engine, memory))(documents)
    expected = DeviceSums(engine.width, "cpu", variance=True)
    for document, outcome in zip(documents, outcomes, strict=True):
        if not isinstance(outcome, Exception):
            engine.run([dataclasses.replace(document, sums=expected)])
    found, once = sums.take(), expected.take()
    assert_array_equal(found.counts, once.counts)
    assert_allclose(found.sums, once.sums, rtol=1e-12)
    assert_allclose(found.squares, once.squares, rtol=1e-12)


def test_sums_that_cannot_grow_are_as_they_were(monkeypatch):
    sums = DeviceSums(4, "cpu", variance=True)
    states = torch.ones(3, 4)
    sums.add(states)

    def no_memory(_):
        raise torch.OutOfMemoryError("no memory for the squares")

    with monkeypatch.context() as fault:
        fault.setattr(torch.Tensor, "double", no_memory)
        with pytest.raises(torch.OutOfMemoryError):
            sums.add(torch.ones(50, 4))
    sums.add(states)
    found = sums.take()
    assert found.documents == 2
    assert found.max_tokens == 3
    assert_array_equal(found.sums, np.full((3, 4), 2.0))


async def test_a_document_that_cannot_fit_fails_alone_in_streams_and_in_means(serve, demo_engine):
    texts = ["short", "word " * 300, "also short", "text"]
    documents = [DocumentMessage(text=text, sequence=n) for n, text in enumerate(texts)]
    job = means_pb2.StreamCorpusMeanRequest(open=means_pb2.CorpusMeanJob(job="job"))
    message = means_pb2.StreamCorpusMeanRequest(
        documents=means_pb2.CorpusMeanDocuments(documents=documents)
    )
    async with serve(SmallEngine(demo_engine, 200)) as (_, stub):
        request = StreamVectorsRequest(settings=SHORT, documents=documents)
        answers = [answer async for answer in stub.StreamVectors(iter([request]))]
        results = {result.sequence: result for answer in answers for result in answer.results}
        finished = [answer async for answer in stub.StreamCorpusMean(iter([job, message]))][-1]
    assert results[1].error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert "no memory on the server for this document of" in results[1].error.message
    assert all(results[n].vector.tokens for n in (0, 2, 3))
    (skipped,) = finished.finished.skipped
    assert (skipped.reason, skipped.documents) == ("RESOURCE_EXHAUSTED", 1)
    assert finished.finished.documents == 3


async def test_an_engine_that_fails_is_logged_once_a_step(serve, demo_engine, caplog):
    class Failing:
        name, card = demo_engine.name, demo_engine.card

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
    return lambda *options, **settings: start_server(*options, program=("-c", HANGING), **settings)


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
