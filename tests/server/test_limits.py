"""What the server refuses beyond: each limit by name, before memory is taken."""

import asyncio
import errno
import hashlib
import itertools
import logging
import os
import resource
import socket
from dataclasses import fields

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import MessageToJson
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, SettingsFrame
from safetensors.numpy import save

from actvec.client import AsyncClient, Vector
from actvec.server.config import AccessOptions, Limits
from actvec.server.main import main
from actvec.v1 import means_pb2, model_pb2
from actvec.v1.vectors_pb2 import (
    MODE_LONG,
    MODE_SHORT,
    VECTOR_ENCODING_VALUES,
    Document,
    ExtractVectorRequest,
    StreamVectorsRequest,
    VectorSettings,
)

SERVICE = "/actvec.v1.ActivationVectorService"
SHORT = VectorSettings(mode=MODE_SHORT)
SETTINGS = StreamVectorsRequest(settings=SHORT)
EXTRACT = ExtractVectorRequest(text="a text", settings=SHORT)
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


async def refused(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    return error.value


async def opened(stub, **options):
    """A stream of vectors that the server has admitted, with nothing in it."""
    call = stub.StreamVectors(**options)
    await call.write(SETTINGS)
    assert (await call.read()).HasField("stamp")
    return call


def test_every_limit_is_a_flag():
    flags = {option for parameter in main.params for option in parameter.opts}
    for field in fields(Limits):
        assert f"--{field.name.replace('_', '-')}" in flags


async def test_streams_beyond_the_limit_are_refused_until_one_ends(serve):
    async with serve(streams=2) as (_, stub):
        first, second = await opened(stub), await opened(stub)
        # No message is sent: the refusal does not wait for one.
        error = await refused(stub.StreamVectors())
        assert error.code() is EXHAUSTED
        assert error.details().startswith("the server has 2 streams open")
        assert "grpc-retry-pushback-ms" in dict(error.trailing_metadata())
        await first.done_writing()
        assert await first.read() is grpc.aio.EOF
        third = await opened(stub)
        for call in (second, third):
            call.cancel()


async def test_unary_calls_beyond_the_limit_are_refused_and_health_is_not(serve, held_engine):
    # A connection of its own: on one, gRPC itself makes calls beyond the limit wait.
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        serve(held_engine, calls=2) as (server, stub),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=own) as channel,
    ):
        waiting = [stub.ExtractVector(EXTRACT) for _ in range(2)]
        await held_engine.entered()
        third = channel.unary_unary(f"{SERVICE}/ExtractVector")
        error = await refused(third(b""))
        while error.code() is grpc.StatusCode.INVALID_ARGUMENT:  # until both are there
            error = await refused(third(b""))
        assert error.code() is EXHAUSTED
        assert error.details().startswith("the server is at 2 calls")
        await channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
        held_engine.release()
        await asyncio.gather(*waiting)
        await stub.ExtractVector(EXTRACT)


async def test_a_callers_documents_are_bounded_over_all_its_calls(serve):
    access = AccessOptions(token="of-a")
    async with serve(access=access, stream_documents=8, caller_documents=17) as (_, stub):
        a = {"metadata": (("authorization", "Bearer of-a"),)}
        calls = [await opened(stub, **a) for _ in range(2)]
        error = await refused(stub.StreamVectors(**a))
        assert error.code() is EXHAUSTED
        assert error.details().startswith(
            "your calls hold places for 16 documents and this one needs 8 more; 17 are yours"
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
        a, b = ({"metadata": (("authorization", f"Bearer of-{name}"),)} for name in "ab")
        first = await opened(stub, **a)
        assert (await refused(stub.StreamVectors(**a))).code() is EXHAUSTED
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


async def test_a_queue_that_is_full_says_when_to_come_back(serve, held_engine):
    async with serve(held_engine, queued_tokens=4) as (_, stub):
        calls = [stub.ExtractVector(EXTRACT)]
        await held_engine.entered()
        calls.append(stub.ExtractVector(EXTRACT))
        error = await refused(stub.ExtractVector(EXTRACT))
        assert error.code() is EXHAUSTED
        assert "queue is full" in error.details()
        assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
        held_engine.release()
        await asyncio.gather(*calls)


async def test_documents_may_be_shorter_than_the_context_only(serve):
    async with serve(document_tokens=10) as (_, stub):
        info = await stub.GetModelInfo(model_pb2.GetModelInfoRequest())
        assert info.limits.max_tokens == 10
        request = ExtractVectorRequest(text="word " * 20, settings=SHORT)
        error = await refused(stub.ExtractVector(request))
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
async def test_a_call_in_which_nothing_happens_is_ended(serve, method, message):
    async with (
        serve(idle_seconds=0.2) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        call = channel.stream_stream(f"{SERVICE}/{method}")()
        if message is not None:
            await call.write(message.SerializeToString())
        error = await refused(call)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details().startswith("nothing was sent for 0.2 seconds")


async def test_a_stream_that_waits_for_the_engine_is_not_idle(serve, held_engine):
    async with serve(held_engine, idle_seconds=0.2) as (_, stub):
        call = await opened(stub)
        await call.write(StreamVectorsRequest(documents=[Document(text="a text")]))
        await held_engine.entered()
        await asyncio.sleep(1)
        held_engine.release()
        (result,) = (await call.read()).results
        assert result.vector.tokens
        assert (await refused(call)).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_job_that_fell_idle_keeps_what_it_took(serve):
    job = means_pb2.StreamCorpusMeanRequest(open=means_pb2.CorpusMeanJob(job="idle"))
    documents = [Document(text=f"text {n}", sequence=n) for n in range(5)]
    message = means_pb2.CorpusMeanDocuments(documents=documents)
    async with serve(idle_seconds=0.2) as (_, stub):
        call = stub.StreamCorpusMean()
        await call.write(job)
        await call.write(means_pb2.StreamCorpusMeanRequest(documents=message))
        assert (await refused(call)).code() is grpc.StatusCode.UNAVAILABLE
        again = stub.StreamCorpusMean()
        await again.write(job)
        assert (await again.read()).opened.next_sequence == 5
        again.cancel()


async def test_a_client_that_takes_no_results_is_cut_and_its_place_given_away(serve, caplog):
    caplog.set_level(logging.INFO)
    settings = VectorSettings(mode=MODE_LONG, encoding=VECTOR_ENCODING_VALUES)
    documents = [Document(text=f"text {n}", sequence=n) for n in range(400)]
    # As small a window as HTTP/2 has: what is not read stays with the server.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1)]
    async with (
        serve(idle_seconds=0.5, streams=1) as (server, stub),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel,
    ):
        call = channel.stream_stream(f"{SERVICE}/StreamVectors")()
        request = StreamVectorsRequest(settings=settings, documents=documents)
        await call.write(request.SerializeToString())
        while True:
            try:
                other = await opened(stub)
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() is EXHAUSTED  # noqa: PT017 - until the first is cut
                await asyncio.sleep(0.05)
        other.cancel()
        error = await refused(call)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "no answer was taken for 0.5 seconds"


async def received(reader: asyncio.StreamReader) -> Frame:
    """The next frame of a connection."""
    frame, length = Frame.parse_frame_header(memoryview(await reader.readexactly(9)))
    frame.parse_body(memoryview(await reader.readexactly(length)))
    return frame


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        (
            "StreamVectors",
            StreamVectorsRequest(
                settings=VectorSettings(mode=MODE_LONG), documents=[Document(text="a text")] * 200
            ),
        ),
        ("GetCorpusMean", means_pb2.GetCorpusMeanRequest(corpus_mean="m")),
    ],
    ids=["stream", "unary"],
)
async def test_what_a_client_never_reads_counts_for_that_client_alone(
    serve, tmp_path, method, request_message
):
    # Of a size that gRPC does not take without a window to write it to.
    note = means_pb2.CorpusMean(skipped=[means_pb2.SkippedDocuments(first_message="x" * 500_000)])
    mean = {"corpus_mean": np.ones((256, 1), dtype=np.float32)}
    file = save(mean, metadata={"actvec": MessageToJson(note)})

    pseudo = {"method": "POST", "scheme": "http", "path": f"{SERVICE}/{method}", "authority": "a"}
    block = Encoder().encode(
        [(f":{name}", value) for name, value in pseudo.items()]
        + [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", "Bearer a")]
    )
    content = request_message.SerializeToString()
    call = [
        SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}),
        HeadersFrame(1, data=block, flags=["END_HEADERS"]),
        DataFrame(1, data=b"\0" + len(content).to_bytes(4, "big") + content),
    ]
    tokens = AccessOptions(token_file=tmp_path / "tokens")
    tokens.token_file.write_text("a\nb\n")
    limits = {"idle_seconds": 0.3, "stream_documents": 1, "caller_documents": 1}
    a, b = ({"metadata": (("authorization", f"Bearer {name}"),)} for name in "ab")
    async with serve(access=tokens, streams=1, calls=1, **limits) as (server, stub):
        await stub.UploadCorpusMean(upload_messages(file), **a)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        writer.writelines(frame.serialize() for frame in call)
        while not isinstance(await received(reader), HeadersFrame):
            pass
        assert (
            "your calls hold places" in (await refused(stub.ExtractVector(EXTRACT, **a))).details()
        )
        while True:
            try:
                other = await opened(stub, **b)
                await other.done_writing()
                assert await other.read() is grpc.aio.EOF
                await stub.ExtractVector(EXTRACT, **b)
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() is EXHAUSTED  # noqa: PT017 - until the first has lost its place
                await asyncio.sleep(0.05)
        assert (
            "your calls hold places" in (await refused(stub.ExtractVector(EXTRACT, **a))).details()
        )
        writer.transport.abort()
        while True:
            try:
                await stub.ExtractVector(EXTRACT, **a)
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() is EXHAUSTED  # noqa: PT017 - until its end was noticed


async def test_connections_grow_old_and_nothing_is_lost(serve):
    async def texts():
        for n in range(60):
            await asyncio.sleep(0.02)
            yield f"text number {n}"

    async with (
        serve(connection_seconds=0.2) as (server, _),
        AsyncClient(f"127.0.0.1:{server.port}") as client,
    ):
        results = asyncio.create_task(_collect(client.stream(texts(), mode="short")))
        for n in range(30):
            await client.extract(f"interactive {n}", mode="short")
            await asyncio.sleep(0.03)
        assert sorted(result.index for result in await results) == list(range(60))


async def _collect(results):
    return [result async for result in results]


async def test_connections_beyond_the_limit_are_closed_at_once(serve):
    settings_frame = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])

    def greeted(connection: socket.socket) -> bool:
        connection.settimeout(10)
        try:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings_frame)
            return bool(connection.recv(64))
        except ConnectionError:
            return False

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", server.port))

    async with serve(connections=2) as (server, _):
        first, second = connect(), connect()
        assert await asyncio.to_thread(greeted, first)
        assert await asyncio.to_thread(greeted, second)
        with connect() as third:
            assert not await asyncio.to_thread(greeted, third)
        first.close()
        for attempt in itertools.count():
            with connect() as fourth:
                if await asyncio.to_thread(greeted, fourth):
                    break
            assert attempt < 100
        second.close()


def mean_file(positions: int = 4) -> bytes:
    mean = np.ones((256, positions), dtype=np.float32)
    return save({"corpus_mean": mean, "counts": np.ones(positions, dtype=np.int64)})


def upload_messages(content: bytes, name: str = "m"):
    upload = means_pb2.CorpusMeanUpload(
        name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    yield means_pb2.UploadCorpusMeanRequest(upload=upload)
    yield means_pb2.UploadCorpusMeanRequest(chunk=content)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"upload_bytes": 1000}, "upload.size_bytes: is .* at most 1000 bytes are taken"),
        ({"store_bytes": 1000}, "the store of means holds 0 bytes and takes 1000"),
    ],
)
async def test_an_upload_beyond_a_limit_is_refused_before_its_bytes_are_sent(
    serve, limits, message
):
    first, _ = upload_messages(mean_file())
    async with serve(**limits) as (_, stub):
        call = stub.UploadCorpusMean()
        await call.write(first)
        with pytest.raises(grpc.aio.AioRpcError, match=message) as error:
            await call
    assert error.value.code() is EXHAUSTED


async def test_a_full_store_takes_more_once_a_mean_is_deleted(serve):
    one, two = mean_file(4), mean_file(5)
    async with serve(store_bytes=len(two) + 10) as (_, stub):
        await stub.UploadCorpusMean(upload_messages(one, "one"))
        error = await refused(stub.UploadCorpusMean(upload_messages(two, "two")))
        assert error.code() is EXHAUSTED
        assert "Delete a mean" in error.details()
        # The same content again takes no room.
        await stub.UploadCorpusMean(upload_messages(one, "one"))
        await stub.DeleteCorpusMean(means_pb2.DeleteCorpusMeanRequest(corpus_mean="one"))
        await stub.UploadCorpusMean(upload_messages(two, "two"))
        listed = await stub.ListCorpusMeans(means_pb2.ListCorpusMeansRequest())
    assert [mean.name for mean in listed.corpus_means] == ["two"]


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (errno.ENOSPC, EXHAUSTED, "cannot store mean m: No space left on device"),
        (errno.EROFS, grpc.StatusCode.INTERNAL, "cannot store mean m: Read-only file system"),
    ],
)
async def test_a_disk_that_takes_nothing_is_the_error_of_that_call_alone(
    serve, monkeypatch, number, code, message
):
    def fsync(_descriptor):
        raise OSError(number, os.strerror(number))

    async with serve() as (_, stub):
        with monkeypatch.context() as fault:
            fault.setattr("actvec.server.means.whole.os.fsync", fsync)
            error = await refused(stub.UploadCorpusMean(upload_messages(mean_file())))
        assert error.code() is code
        assert message in error.details()
        assert not (await stub.ListCorpusMeans(means_pb2.ListCorpusMeansRequest())).corpus_means
        await stub.UploadCorpusMean(upload_messages(mean_file()))
        (mean,) = (await stub.ListCorpusMeans(means_pb2.ListCorpusMeansRequest())).corpus_means
    assert mean.name == "m"


async def test_a_disk_that_fills_up_while_a_file_arrives_is_the_error_of_that_call_alone(serve):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with serve() as (_, stub):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, limit[1]))
        try:
            error = await refused(stub.UploadCorpusMean(upload_messages(mean_file())))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert error.code() is EXHAUSTED
        assert error.details() == "cannot store mean m: File too large"
        await stub.UploadCorpusMean(upload_messages(mean_file()))
