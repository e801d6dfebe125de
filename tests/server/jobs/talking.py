"""Messages of `StreamCorpusMean`, and exchanges of a raw client."""

import contextlib

import grpc
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load

from actvec.client.samples import sample_corpus
from actvec.v1 import means_pb2, vectors_pb2
from actvec.v1.means_pb2 import (
    CorpusMeanDocuments,
    CorpusMeanFinish,
    CorpusMeanJob,
    StreamCorpusMeanRequest,
)

TEXTS = [document.text for document in sample_corpus() if document.id.endswith("_short")]


def opening(job="job", **settings):
    return StreamCorpusMeanRequest(open=CorpusMeanJob(job=job, **settings))


def documents(texts, start=0):
    return StreamCorpusMeanRequest(
        documents=CorpusMeanDocuments(
            documents=[
                vectors_pb2.Document(id=f"d{number}", text=text, sequence=number)
                for number, text in enumerate(texts, start)
            ]
        )
    )


def finish(count):
    return StreamCorpusMeanRequest(finish=CorpusMeanFinish(documents=count))


async def run(stub, *messages):
    """Return all responses of a stream whose client half-closes."""
    return [response async for response in stub.StreamCorpusMean(iter(messages))]


async def answers(call):
    """Yield the responses of a call whose messages the test writes."""
    while (response := await call.read()) is not grpc.aio.EOF:
        yield response


async def mean_of(stub, texts, job="job", **settings):
    """Return the record and tensors of a mean made without interruption."""
    responses = await run(stub, opening(job, **settings), documents(texts))
    record = responses[-1].finished
    return record, await tensors_of(stub, record.id)


async def tensors_of(stub, mean):
    request = means_pb2.DownloadCorpusMeanRequest(corpus_mean=mean)
    parts = [part async for part in stub.DownloadCorpusMean(request)]
    return load(b"".join(part.chunk for part in parts))


@contextlib.contextmanager
def refused(code, match):
    with pytest.raises(grpc.aio.AioRpcError, match=match) as error:
        yield
    assert error.value.code() is code


def assert_same(found, expected):
    assert_array_equal(found["counts"], expected["counts"])
    assert_allclose(found["sums"], expected["sums"], rtol=1e-12, atol=1e-12)
