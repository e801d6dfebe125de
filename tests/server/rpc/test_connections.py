"""Connections that grow old or are too many, and answers that nobody reads."""

import asyncio
import logging
import socket

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import MessageToJson
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, SettingsFrame
from safetensors.numpy import save

from actvec.client import AsyncClient
from actvec.server.config import AccessOptions
from actvec.server.model.demo import WIDTH
from actvec.v1 import means_pb2
from actvec.v1.vectors_pb2 import (
    MODE_LONG,
    VECTOR_ENCODING_VALUES,
    Document,
    StreamVectorsRequest,
    VectorSettings,
)
from tests.server.calling import (
    EXHAUSTED,
    EXTRACT,
    SERVICE,
    bearer,
    error_of,
    opened,
    upload_messages,
)


async def test_client_that_reads_nothing_is_cut(serve, clock, caplog):
    caplog.set_level(logging.INFO)
    settings = VectorSettings(mode=MODE_LONG, encoding=VECTOR_ENCODING_VALUES)
    documents = [Document(text=f"text {n}", sequence=n) for n in range(400)]
    # The smallest window of HTTP/2: unread answers stay with the server.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1)]
    async with (
        serve(streams=1) as (server, stub),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel,
    ):
        call = channel.stream_stream(f"{SERVICE}/StreamVectors")()
        request = StreamVectorsRequest(settings=settings, documents=documents)
        await call.write(request.SerializeToString())
        await call.read()  # The stamp: this stream is admitted, so the other is refused.
        assert (await error_of(stub.StreamVectors())).code() is EXHAUSTED
        (stream,) = server._service._streams
        await clock.run(600, until=lambda: stream not in server._service._streams)
        other = await opened(stub)
        other.cancel()
        error = await error_of(call)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the client read no answer for 600 seconds"


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
async def test_unread_answers_count_for_their_client(
    serve, clock, tmp_path, method, request_message
):
    # Too large for gRPC to accept without a window to write it to.
    note = means_pb2.CorpusMean(skipped=[means_pb2.SkippedDocuments(first_message="x" * 500_000)])
    mean = {"corpus_mean": np.ones((WIDTH, 1), dtype=np.float32)}
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
    limits = {"streams": 1, "calls": 1, "stream_documents": 1, "caller_documents": 1}
    a, b = ({"metadata": bearer(name)} for name in "ab")

    async def there_is_room() -> bool:
        try:
            other = await opened(stub, **b)
            await other.done_writing()
            assert await other.read() is grpc.aio.EOF
            await stub.ExtractVector(EXTRACT, **b)
        except grpc.aio.AioRpcError as error:
            assert error.code() is EXHAUSTED  # noqa: PT017 - until the first has lost its place
            return False
        return True

    async with serve(access=tokens, **limits) as (server, stub):
        await stub.UploadCorpusMean(upload_messages(file), **a)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        writer.writelines(frame.serialize() for frame in call)
        while not isinstance(await received(reader), HeadersFrame):
            pass
        assert (
            "your calls hold places" in (await error_of(stub.ExtractVector(EXTRACT, **a))).details()
        )
        while not await there_is_room():
            clock.advance(600)
        assert (
            "your calls hold places" in (await error_of(stub.ExtractVector(EXTRACT, **a))).details()
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
            await asyncio.sleep(0.01)
            yield f"text number {n}"

    async with (
        serve(connection_seconds=0.1) as (server, _),
        AsyncClient(f"127.0.0.1:{server.port}") as client,
    ):
        results = asyncio.create_task(_collect(client.stream(texts(), mode="short")))
        for n in range(30):
            await client.extract(f"interactive {n}", mode="short")
            await asyncio.sleep(0.01)
        assert sorted(result.index for result in await results) == list(range(60))


async def _collect(results):
    return [result async for result in results]


async def test_connections_beyond_the_limit_are_closed(serve):
    settings_frame = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])

    def greeted(connection: socket.socket) -> bool:
        connection.settimeout(60)
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
        has_room = False
        while not has_room:
            with connect() as fourth:
                has_room = await asyncio.to_thread(greeted, fourth)
        second.close()
