"""Memory that ends: steps are halved, a document is summed once, and means wait."""

import asyncio
import dataclasses
import gc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from actvec.client import AsyncClient, Document, ServerUnavailable
from actvec.server.engine.pools import StepPooling
from actvec.server.engine.runner import StepRunner
from actvec.server.engine.step import DeviceSums, StepDocument
from actvec.server.errors import DoesNotFitError
from actvec.server.model.target import Target
from actvec.v1 import means_pb2
from actvec.v1.vectors_pb2 import Document as DocumentMessage
from actvec.v1.vectors_pb2 import StreamVectorsRequest
from tests.server.calling import EXHAUSTED, EXTRACT, SHORT, error_of
from tests.server.engines import StandIn
from tests.waiting import eventually

LARGE = "word " * 300
WITH_A_LARGE_ONE = [
    *(Document(f"d{n}", f"text number {n}") for n in range(20)),
    Document("large", LARGE),
    Document("last", "a text"),
]


class SmallEngine(StandIn):
    """An engine whose memory ends at a number of tokens per step."""

    def __init__(self, engine, tokens, error=torch.OutOfMemoryError):
        super().__init__(engine)
        self.steps = []
        self.tokens = tokens
        self._error = error

    def run(self, documents):
        tokens = sum(document.tokens for document in documents)
        self.steps.append(tokens)
        if tokens > self.tokens:
            raise self._error("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return self._engine.run(documents)


class PoolingEngine:
    """Pools and sums states that are functions of the ids: a whole engine except for the model."""

    name, width = "pooling", 4
    card = SimpleNamespace(d_model=width, target=Target((0,)))

    def groups(self, lengths):
        return [list(range(len(lengths)))]

    def run(self, documents):
        ids = torch.from_numpy(np.concatenate([document.ids for document in documents]))
        states = ids.float()[:, None] * torch.arange(1, self.width + 1)
        pooling = StepPooling(documents, Target((0,)), states.device)
        for point in pooling.points:
            pooling.take(point, states)
        return pooling.results()


def documents_of(lengths, **settings):
    return [StepDocument.of(np.arange(length) % 200, "long", **settings) for length in lengths]


def mean_messages(job, documents):
    yield means_pb2.StreamCorpusMeanRequest(open=means_pb2.CorpusMeanJob(job=job))
    message = means_pb2.CorpusMeanDocuments(documents=documents)
    yield means_pb2.StreamCorpusMeanRequest(documents=message)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_oversized_step_is_halved(demo_engine, error):
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


@settings(max_examples=50)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 80))
def test_only_unfit_documents_fail(lengths, memory):
    outcomes = StepRunner(SmallEngine(PoolingEngine(), memory))(documents_of(lengths))
    assert len(outcomes) == len(lengths)
    for length, outcome in zip(lengths, outcomes, strict=True):
        assert isinstance(outcome, DoesNotFitError) == (length > memory)


@settings(max_examples=50)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=10),
    st.integers(10, 60),
    st.sets(st.integers(0, 20)),
    st.sampled_from([torch.OutOfMemoryError, MemoryError]),
)
@example([5, 5, 5], 60, {2}, torch.OutOfMemoryError)
@example([5, 5, 5], 60, {2}, MemoryError)
def test_document_is_summed_once_despite_short_memory(lengths, memory, failures, error):
    """In the forward pass, and in the sums themselves."""

    class Sums(DeviceSums):
        calls = 0

        def add(self, states):
            self.calls += 1
            if self.calls in failures:
                raise error("no memory for the sums")
            super().add(states)

    engine = PoolingEngine()
    sums = Sums(engine.width, "cpu", variance=True, longest=40)
    documents = documents_of(lengths, sums=sums)
    outcomes = StepRunner(SmallEngine(engine, memory))(documents)
    expected = DeviceSums(engine.width, "cpu", variance=True, longest=40)
    for document, outcome in zip(documents, outcomes, strict=True):
        if not isinstance(outcome, Exception):
            engine.run([dataclasses.replace(document, sums=expected)])
    found, once = sums.take(), expected.take()
    assert_array_equal(found.counts, once.counts)
    assert_allclose(found.sums, once.sums, rtol=1e-12)
    assert_allclose(found.squares, once.squares, rtol=1e-12)


def no_memory(*_, **__):
    raise torch.OutOfMemoryError("no memory")


@pytest.mark.parametrize("operation", ["new_zeros", "empty_like"])
def test_failed_addition_leaves_the_sums_unchanged(monkeypatch, operation):
    sums = DeviceSums(4, "cpu", variance=True, longest=50)
    states = torch.full((3, 4), 2.0)
    sums.add(states)
    with monkeypatch.context() as fault:
        fault.setattr(torch.Tensor if operation == "new_zeros" else torch, operation, no_memory)
        with pytest.raises(torch.OutOfMemoryError):
            sums.add(torch.ones(50, 4))
    sums.add(states)
    found = sums.take()
    assert found.documents == 2
    assert found.max_tokens == 3
    assert_array_equal(found.sums, np.full((3, 4), 4.0))
    assert_array_equal(found.squares, np.full((3, 4), 8.0))


def test_sums_grow_to_the_longest_document(monkeypatch):
    rows = []

    def new_zeros(sums, shape, make=torch.Tensor.new_zeros):
        rows.append(shape[1])
        return make(sums, shape)

    monkeypatch.setattr(torch.Tensor, "new_zeros", new_zeros)
    sums = DeviceSums(4, "cpu", variance=False, longest=100)
    for tokens in (60, 61, 100):
        sums.add(torch.ones(tokens, 4))
    assert rows == [60, 100]


async def test_unfit_document_fails_alone(serve, demo_engine):
    texts = ["short", LARGE, "also short", "text"]
    documents = [DocumentMessage(text=text, sequence=n) for n, text in enumerate(texts)]
    async with serve(SmallEngine(demo_engine, 200)) as (_, stub):
        request = StreamVectorsRequest(settings=SHORT, documents=documents)
        answers = [answer async for answer in stub.StreamVectors(iter([request]))]
    results = {result.sequence: result for answer in answers for result in answer.results}
    assert results[1].error.code == EXHAUSTED.value[0]
    assert "the server has no memory for this document of" in results[1].error.message
    assert all(results[n].vector.tokens for n in (0, 2, 3))


async def test_mean_waits_without_memory(serve, demo_engine, caplog):
    """It is not skipped: at its start the server has checked that the longest document fits."""
    engine = SmallEngine(demo_engine, 200)
    async with (
        serve(engine) as (server, _),
        AsyncClient(f"127.0.0.1:{server.port}") as client,
    ):
        making = asyncio.create_task(client.corpus_mean(WITH_A_LARGE_ONE, job="job"))
        await eventually(lambda: "reconnecting" in caplog.text)
        engine.tokens = 1000
        mean = await making
    assert mean.documents == len(WITH_A_LARGE_ONE)
    assert not mean.skipped


async def test_mean_names_the_document_it_waits_for(serve, demo_engine):
    engine = SmallEngine(demo_engine, 200)
    words = r"the server has no memory now for document 'large' \(the job's number 20, 602 tokens\)"
    async with (
        serve(engine, commit_seconds=0) as (server, stub),
        AsyncClient(f"127.0.0.1:{server.port}", retry_for=0.5) as client,
    ):
        with pytest.raises(ServerUnavailable, match=words):
            await client.corpus_mean(WITH_A_LARGE_ONE, job="job")
        messages = [
            DocumentMessage(id=document.id, text=document.text, sequence=n)
            for n, document in enumerate(WITH_A_LARGE_ONE)
        ]
        error = await error_of(stub.StreamCorpusMean(iter(mean_messages("raw", messages))))
        assert error.code() is EXHAUSTED
        assert "grpc-retry-pushback-ms" in dict(error.trailing_metadata())
        engine.tokens = 1000
        mean = await client.corpus_mean(WITH_A_LARGE_ONE, job="job")
    assert mean.documents == len(WITH_A_LARGE_ONE)


async def test_waiting_job_keeps_no_memory(serve, demo_engine):
    """Others have their sums there: the memory is returned at once, not at a garbage collection."""

    def summed():
        tensors = [one for one in gc.get_objects() if type(one) is torch.Tensor]
        return sum(one.nbytes for one in tensors if one.dtype is torch.float64)

    documents = [DocumentMessage(text="a text"), DocumentMessage(text=LARGE, sequence=1)]
    before = summed()
    gc.disable()
    try:
        async with serve(SmallEngine(demo_engine, 200)) as (_, stub):
            error = await error_of(stub.StreamCorpusMean(iter(mean_messages("job", documents))))
            assert error.code() is EXHAUSTED
            # The engine's thread holds its last step until the next one.
            await stub.ExtractVector(EXTRACT)
            await stub.ExtractVector(EXTRACT)
            await eventually(lambda: summed() <= before)
    finally:
        gc.enable()
