"""`StreamVectors` through raw stubs: each document has a result under its id, or an error."""

import asyncio
import dataclasses
import threading

import grpc
import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models
from transformers import PreTrainedTokenizerFast

from actvec.pooling import Pool, written
from actvec.server.config import ModelOptions
from actvec.server.engine.packed import PackedEngine
from actvec.server.means.store import MeanStore
from actvec.server.model.loading import load_model
from actvec.v1.vectors_pb2 import (
    MODE_LONG,
    MODE_SHORT,
    Document,
    StreamVectorsRequest,
    VectorSettings,
)
from tests.server.calling import LONG, SHORT, collect, error_of, extract, mean_file, upload_messages
from tests.server.conftest import random_neox, save_model
from tests.waiting import eventually


async def test_stream_and_unary_call_agree(serve):
    texts = [f"Document number {n} " + "and more of it " * (n % 37) for n in range(120)]
    messages = [StreamVectorsRequest(settings=LONG)] + [
        StreamVectorsRequest(
            documents=[
                Document(id=f"doc-{n}", text=texts[n], sequence=n) for n in range(start, start + 10)
            ]
        )
        for start in range(0, 120, 10)
    ]
    async with serve() as (_, stub):
        stamp, results = await collect(stub, messages)
        assert sorted(results) == list(range(120))
        for n in (0, 36, 119):
            alone = await extract(stub, texts[n], mode=MODE_LONG)
            assert results[n].id == f"doc-{n}"
            assert results[n].vector == alone.vector
            assert stamp == alone.stamp


async def test_bad_document_is_its_own_error(serve):
    documents = [
        Document(id="good", text="text", sequence=1),
        Document(id="blank", text=" ", sequence=2),
        Document(id="long", text="word " * 5000, sequence=3),
        Document(id="large", text="x" * 50_000, sequence=4),
        Document(id="i" * 2000, text="text", sequence=5),
        Document(id="good", text="text", sequence=6),
    ]
    async with serve(text_bytes=40_000) as (_, stub):
        request = StreamVectorsRequest(settings=SHORT, documents=documents)
        _, results = await collect(stub, [request])
    assert results[1].vector == results[6].vector
    assert results[1].vector.tokens > 0
    errors = {n: (result.error.code, result.error.field) for n, result in results.items()}
    assert errors[2] == errors[3] == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "text")
    assert errors[4] == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "text")
    assert errors[5] == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "documents[4].id")
    assert "4096 fit" in results[3].error.message


async def test_a_poisoned_document_fails_alone(serve, tmp_path):
    loaded = load_model(ModelOptions(str(save_model(tmp_path, random_neox()))))
    (poison,) = loaded.tokenizer("~")["input_ids"]
    loaded.module.gpt_neox.embed_in.weight[poison] = float("inf")
    documents = [Document(text=text, sequence=n) for n, text in enumerate("a~a")]
    async with serve(PackedEngine(loaded), loaded) as (_, stub):
        request = StreamVectorsRequest(settings=SHORT, documents=documents)
        _, results = await collect(stub, [request])
    assert results[0].vector == results[2].vector
    assert results[1].error.code == grpc.StatusCode.INTERNAL.value[0]
    assert "layer 2 is not finite" in results[1].error.message


async def test_failing_pool_fails_its_document(serve, monkeypatch):
    """One that a server registers may raise anything; the stream goes to its end."""
    failing = Pool("failing", lambda tokens: np.ones(tokens.used))
    monkeypatch.setitem(written._FACTORIES, "failing", lambda _: failing)
    documents = [Document(text=text, sequence=n) for n, text in enumerate(["a", "a b c", "a"])]
    settings = VectorSettings(pools=["failing"], prepend_bos=False)
    async with serve() as (_, stub), asyncio.timeout(60):
        request = StreamVectorsRequest(settings=settings, documents=documents)
        _, results = await collect(stub, [request])
    assert results[0].vector == results[2].vector
    assert results[1].error.code == grpc.StatusCode.INTERNAL.value[0]
    assert "internal error (ValueError)" in results[1].error.message


async def test_text_without_a_token_is_its_own_error(serve, demo_model, demo_engine):
    """Its neighbors in the step are computed."""
    backend = Backend(models.BPE({"a": 0}, []))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    loaded = dataclasses.replace(demo_model, tokenizer=tokenizer)
    documents = [Document(text=text, sequence=n) for n, text in enumerate(["a", "???", "aa"])]
    settings = VectorSettings(mode=MODE_SHORT, prepend_bos=False)
    async with serve(demo_engine, loaded) as (_, stub):
        request = StreamVectorsRequest(settings=settings, documents=documents)
        _, results = await collect(stub, [request])
    assert [results[n].vector.tokens for n in (0, 2)] == [1, 2]
    assert results[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert results[1].error.field == "text"


@pytest.mark.parametrize(
    ("messages", "details"),
    [
        ([], "settings: the first message"),
        ([StreamVectorsRequest(documents=[Document(text="a")])], "settings: the first message"),
        (
            [StreamVectorsRequest(settings=SHORT), StreamVectorsRequest(settings=SHORT)],
            "settings: belong in the first message",
        ),
    ],
)
async def test_breach_of_the_contract_is_explained(serve, messages, details):
    async with serve() as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError, match=details) as error:
            await collect(stub, messages)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_documents_before_a_broken_message_are_answered(serve):
    messages = [
        StreamVectorsRequest(settings=SHORT, documents=[Document(text="text", sequence=4)]),
        StreamVectorsRequest(settings=SHORT),
    ]
    seen = []
    async with serve() as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError, match="settings: belong"):
            async for response in stub.StreamVectors(iter(messages)):
                seen += [result.sequence for result in response.results]
    assert seen == [4]


async def test_reader_that_stops_is_read_no_further(serve):
    """Back-pressure: the server holds a window of documents and leaves the rest to the client."""
    sent = 0
    text = "a document that is long enough to fill buffers " * 40

    async def endless():
        nonlocal sent
        yield StreamVectorsRequest(settings=LONG)
        while True:
            await asyncio.sleep(0)
            yield StreamVectorsRequest(documents=[Document(text=text, sequence=sent)])
            sent += 1

    async with serve(stream_documents=8) as (_, stub):
        call = stub.StreamVectors(endless())
        await call.read()
        before = -1
        while sent > before:
            before = sent
            await asyncio.sleep(0.2)
        # the rest is in the buffers of the connection, some megabytes, and not in the server
        assert sent * len(text) < 32 << 20
        call.cancel()


async def test_message_is_tokenized_as_room_allows(serve, held_engine, tokenized_texts):
    """A few documents at a time: a message of a million delays nobody."""
    documents = [Document(text="a", sequence=n) for n in range(1000)]
    message = StreamVectorsRequest(settings=SHORT, documents=documents)
    async with serve(held_engine, stream_documents=8) as (_, stub):
        full = stub.StreamVectors()
        await full.write(message)
        await full.read()
        await held_engine.entered()
        other = StreamVectorsRequest(settings=SHORT, documents=[Document(text="another")])
        answering = asyncio.create_task(collect(stub, [other]))
        await eventually(lambda: "another" in tokenized_texts)
        assert len(tokenized_texts) <= 8 + 64 + 1
        held_engine.release()
        await answering
        await full.done_writing()
        seen = []
        while (response := await full.read()) is not grpc.aio.EOF:
            seen += [result.sequence for result in response.results]
    assert sorted(seen) == list(range(1000))


async def test_a_cancelled_stream_leaves_the_queue(serve, held_engine):
    documents = [Document(text="a few words", sequence=n) for n in range(100)]
    async with serve(held_engine, step_tokens=1) as (server, stub):
        call = stub.StreamVectors(iter([StreamVectorsRequest(settings=SHORT, documents=documents)]))
        await held_engine.entered()
        await eventually(lambda: server._extractor.waiting_tokens(interactive=False))
        call.cancel()
        await eventually(lambda: not server._extractor.waiting_tokens(interactive=False))
        held_engine.release()
        await extract(stub, "still served", mode=MODE_SHORT)
    assert held_engine.steps == [1, 1]


async def test_draining_server_finishes_and_is_unavailable(serve):
    # Texts tokenized in one go: all are in flight once one is answered.
    documents = [Document(text="a few words " * 40, sequence=n) for n in range(50)]

    async def messages():
        yield StreamVectorsRequest(settings=SHORT, documents=documents)
        await asyncio.Event().wait()

    seen = []
    async with serve(step_tokens=512) as (server, stub):
        call = stub.StreamVectors(messages())
        await call.read()
        first = await call.read()
        seen += [result.sequence for result in first.results]
        stopping = asyncio.create_task(server.stop(grace=60))
        with pytest.raises(grpc.aio.AioRpcError, match="shutting down") as error:
            while response := await call.read():
                seen += [result.sequence for result in response.results]
        await stopping
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(seen) == len(set(seen))
    assert set(seen) == set(range(50))


async def test_stream_ended_while_opening_is_reported(serve, monkeypatch):
    """And not only at the end of the grace period."""
    loading, may_load = threading.Event(), threading.Event()
    load = MeanStore.load

    def held(self, record):
        loading.set()
        assert may_load.wait(60)
        return load(self, record)

    monkeypatch.setattr(MeanStore, "load", held)
    async with serve() as (server, stub):
        await stub.UploadCorpusMean(upload_messages(mean_file()))
        call = stub.StreamVectors()
        settings = VectorSettings(mode=MODE_SHORT, corpus_mean="m")
        await call.write(StreamVectorsRequest(settings=settings))
        assert await asyncio.to_thread(loading.wait, 60)
        (stream,) = server._service._streams
        stopping = asyncio.create_task(server.stop(grace=60))
        await eventually(lambda: stream._stopped)
        may_load.set()
        error = await error_of(call)
        await stopping
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in error.details()
