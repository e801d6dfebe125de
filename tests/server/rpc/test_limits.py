"""The server's limits: each by name, before memory is taken."""

import asyncio
from dataclasses import fields

import grpc
import pytest

from actvec.client import AsyncClient, Vector
from actvec.server.config import AccessOptions, Limits
from actvec.server.program.main import main
from actvec.server.service.vector_stream import VectorsCall
from actvec.v1 import means_pb2, model_pb2
from actvec.v1.vectors_pb2 import Document, ExtractVectorRequest, StreamVectorsRequest
from tests.server.calling import (
    EXHAUSTED,
    EXTRACT,
    SERVICE,
    SETTINGS,
    SHORT,
    bearer,
    error_of,
    opened,
)
from tests.waiting import eventually


def test_every_limit_is_a_flag():
    flags = {option for parameter in main.params for option in parameter.opts}
    for field in fields(Limits):
        assert f"--{field.name.replace('_', '-')}" in flags


async def test_streams_beyond_the_limit_are_refused(serve):
    async with serve(streams=2) as (_, stub):
        first, second = await opened(stub), await opened(stub)
        # The test sends no message: the refusal does not wait for one.
        error = await error_of(stub.StreamVectors())
        assert error.code() is EXHAUSTED
        assert error.details().startswith("the server has 2 streams open")
        assert "grpc-retry-pushback-ms" in dict(error.trailing_metadata())
        await first.done_writing()
        assert await first.read() is grpc.aio.EOF
        third = await opened(stub)
        for call in (second, third):
            call.cancel()


async def test_unary_calls_beyond_the_limit_are_refused(serve, held_engine):
    # A new connection: on a shared one, gRPC itself makes calls beyond the limit wait.
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        serve(held_engine, calls=2) as (server, stub),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=own) as channel,
    ):
        waiting = [stub.ExtractVector(EXTRACT)]
        await held_engine.entered()
        waiting.append(stub.ExtractVector(EXTRACT))
        await eventually(lambda: server._extractor.waiting_tokens(interactive=True))
        error = await error_of(channel.unary_unary(f"{SERVICE}/ExtractVector")(b""))
        assert error.code() is EXHAUSTED
        assert error.details().startswith("the server is running 2 calls")
        await channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
        held_engine.release()
        await asyncio.gather(*waiting)
        await stub.ExtractVector(EXTRACT)


async def test_documents_of_a_caller_are_bounded(serve):
    access = AccessOptions(token="of-a")
    async with serve(access=access, stream_documents=8, caller_documents=17) as (_, stub):
        a = {"metadata": bearer("of-a")}
        calls = [await opened(stub, **a) for _ in range(2)]
        error = await error_of(stub.StreamVectors(**a))
        assert error.code() is EXHAUSTED
        assert error.details().startswith(
            "your calls hold places for 16 documents, this one needs 8 more, and your limit is 17"
        )
        await stub.ExtractVector(EXTRACT, **a)
        calls[0].cancel()
        while True:
            try:
                calls.append(await opened(stub, **a))
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() is EXHAUSTED  # noqa: PT017 - until the cancellation arrived
        for call in calls:
            call.cancel()


async def test_callers_do_not_share_their_bound(serve, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("of-a\nof-b\n")
    access = AccessOptions(token_file=tokens)
    async with serve(access=access, stream_documents=8, caller_documents=8) as (_, stub):
        a, b = ({"metadata": bearer(f"of-{name}")} for name in "ab")
        first = await opened(stub, **a)
        assert (await error_of(stub.StreamVectors(**a))).code() is EXHAUSTED
        second = await opened(stub, **b)
        for call in (first, second):
            call.cancel()


async def test_our_client_waits_its_turn(serve):
    texts = [f"text number {n}" for n in range(20)]

    async def results():
        async with AsyncClient(f"127.0.0.1:{server.port}") as client:
            return [result async for result in client.stream(texts, mode="short")]

    async with serve(streams=1) as (server, _):
        for answers in await asyncio.gather(*(results() for _ in range(4))):
            assert sum(isinstance(answer, Vector) for answer in answers) == len(texts)


async def test_full_queue_suggests_a_retry(serve, held_engine):
    async with serve(held_engine, queued_tokens=4) as (server, stub):
        calls = [stub.ExtractVector(EXTRACT)]
        await held_engine.entered()
        calls.append(stub.ExtractVector(EXTRACT))
        await eventually(lambda: server._extractor.waiting_tokens(interactive=True))
        error = await error_of(stub.ExtractVector(EXTRACT))
        assert error.code() is EXHAUSTED
        assert "queue is full" in error.details()
        assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
        held_engine.release()
        await asyncio.gather(*calls)


async def test_documents_may_be_shorter_than_the_context(serve):
    async with serve(document_tokens=10) as (_, stub):
        info = await stub.GetModelInfo(model_pb2.GetModelInfoRequest())
        assert info.limits.max_tokens == 10
        request = ExtractVectorRequest(text="word " * 20, settings=SHORT)
        error = await error_of(stub.ExtractVector(request))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "10 fit" in error.details()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("StreamVectors", None),
        ("StreamVectors", SETTINGS),
        ("StreamCorpusMean", None),
        (
            "StreamCorpusMean",
            means_pb2.StreamCorpusMeanRequest(open=means_pb2.CorpusMeanJob(job="idle")),
        ),
        ("UploadCorpusMean", None),
        ("ExtractVector", None),
    ],
    ids=["vectors", "opened", "mean", "open job", "upload", "unary"],
)
async def test_idle_call_is_ended(serve, idle_clock, method, message):
    async with (
        serve() as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        call = channel.stream_stream(f"{SERVICE}/{method}")()
        if message is not None:
            await call.write(message.SerializeToString())
            # Its answer: the server has the message.
            await call.read()
        error = await idle_clock.passes(600, error_of(call))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details().startswith("nothing was sent for 600 seconds")


async def test_waiting_stream_is_not_idle(serve, held_engine, idle_clock, monkeypatch):
    times, busy = [], VectorsCall.busy

    def noted(self):
        times.append(busy.fget(self))
        return times[-1]

    async with serve(held_engine) as (_, stub):
        call = await opened(stub)
        await call.write(StreamVectorsRequest(documents=[Document(text="a text")]))
        await held_engine.entered()
        monkeypatch.setattr(VectorsCall, "busy", property(noted))
        await idle_clock.run(600, until=lambda: len(times) > 2)
        assert all(times)
        # A stream that was cut would still answer the documents read, and nothing more.
        more = [Document(text="another", sequence=1)]
        await call.write(StreamVectorsRequest(documents=more))
        held_engine.release()
        seen = []
        while len(seen) < 2:
            seen += [result.sequence for result in (await call.read()).results]
        assert sorted(seen) == [0, 1]
        error = await idle_clock.passes(600, error_of(call))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_idle_job_keeps_its_documents(serve, idle_clock):
    job = means_pb2.StreamCorpusMeanRequest(open=means_pb2.CorpusMeanJob(job="idle"))
    documents = [Document(text=f"text {n}", sequence=n) for n in range(5)]
    message = means_pb2.CorpusMeanDocuments(documents=documents)
    async with serve() as (_, stub):
        call = stub.StreamCorpusMean()
        await call.write(job)
        await call.write(means_pb2.StreamCorpusMeanRequest(documents=message))
        while (await call.read()).progress.documents < 5:
            pass
        error = await idle_clock.passes(600, error_of(call))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        again = stub.StreamCorpusMean()
        await again.write(job)
        assert (await again.read()).opened.next_sequence == 5
        again.cancel()
