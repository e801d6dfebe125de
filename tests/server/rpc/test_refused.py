"""A refused request is gone with its call, and not only once the garbage collector runs."""

import gc
import os
from pathlib import Path

import grpc
import pytest

from actvec.server.heap import give_back_memory
from actvec.v1.vectors_pb2 import Document, ExtractVectorRequest, StreamVectorsRequest
from tests.server.calling import SERVICE, SHORT, over

MIB = 2**20
LARGE = "word " * (4 * MIB // 5)
TEXT = ExtractVectorRequest(text=LARGE, settings=SHORT).SerializeToString()
STREAM = StreamVectorsRequest(settings=SHORT, documents=[Document(text=LARGE)]).SerializeToString()
ANY_SIZE = [("grpc.max_send_message_length", -1)]


@pytest.fixture
def uncollected():
    """The garbage collector stands still."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def resident() -> float:
    """Resident memory of this process in MiB, without what the heap keeps free."""
    give_back_memory()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize(
    ("method", "message"),
    [
        pytest.param("ExtractVector", TEXT, id="a text that cannot fit"),
        pytest.param("StreamVectors", STREAM, id="a document that cannot fit"),
        pytest.param("ExtractVector", TEXT[:-1], id="bytes that are no message"),
    ],
)
async def test_refused_request_leaves_no_memory(serve, method, message):
    async with (
        serve(document_tokens=256) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=ANY_SIZE) as channel,
    ):

        async def refused(times: int) -> None:
            for _ in range(times):
                call = channel.stream_stream(f"{SERVICE}/{method}")()
                await call.write(message)
                await call.done_writing()
                await over(call)

        await refused(3)
        before = resident()
        await refused(20)
        # A leak would leave 4 MiB or more each time.
        assert resident() - before < 40
