"""Limits to the byte: the limit itself is accepted, one more is refused."""

import grpc
import pytest

from actvec.v1.means_pb2 import CorpusMeanSkip, StreamCorpusMeanRequest
from actvec.v1.vectors_pb2 import Document, StreamVectorsRequest
from tests.server.calling import SHORT, collect
from tests.server.jobs.talking import documents, opening, refused, run

# 1,024 bytes of UTF-8, in fewer characters.
LONGEST = "é" * 512


async def test_id_may_have_1024_bytes(serve):
    some = [Document(id=LONGEST, text="a text"), Document(id=LONGEST + "x", text="a", sequence=1)]
    async with serve() as (_, stub):
        _, results = await collect(stub, [StreamVectorsRequest(settings=SHORT, documents=some)])
    assert results[0].vector.tokens
    assert results[1].error.field == "documents[1].id"
    assert "is longer than 1024 bytes" in results[1].error.message


async def test_holder_may_have_1024_bytes(serve):
    async with serve() as (_, stub):
        answers = await run(stub, opening(holder=LONGEST), documents(["a text"]))
        assert answers[-1].finished.documents == 1
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "open.holder: is longer than 1024 bytes"):
            await run(stub, opening("other", holder=LONGEST + "x"))


@pytest.mark.parametrize("more", ["", "x"])
async def test_reason_may_have_1024_bytes(serve, more):
    skip = CorpusMeanSkip(sequence=1, id="d1", reason="DATA_LOSS", message=LONGEST + more)
    messages = (opening(), documents(["a text"]), StreamCorpusMeanRequest(skip=skip))
    async with serve() as (_, stub):
        if not more:
            assert (await run(stub, *messages))[-1].finished.skipped[0].first_message == LONGEST
            return
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "skip.message: is longer than 1024"):
            await run(stub, *messages)
