"""Calls through raw stubs, as any client can make them, and their results."""

import contextlib
import hashlib

import grpc
import numpy as np
import pytest
from safetensors.numpy import save

from actvec.server.model.demo import WIDTH
from actvec.v1 import means_pb2, vectors_pb2
from actvec.v1.vectors_pb2 import (
    MODE_LONG,
    MODE_SHORT,
    Document,
    ExtractVectorRequest,
    StreamVectorsRequest,
    VectorSettings,
)

SERVICE = "/actvec.v1.ActivationVectorService"
SHORT = VectorSettings(mode=MODE_SHORT)
LONG = VectorSettings(mode=MODE_LONG)
SETTINGS = StreamVectorsRequest(settings=SHORT)
EXTRACT = ExtractVectorRequest(text="a text", settings=SHORT)
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def some_documents(*texts: str) -> StreamVectorsRequest:
    documents = [Document(text=text, sequence=n) for n, text in enumerate(texts)]
    return StreamVectorsRequest(settings=SHORT, documents=documents)


def bearer(token: str) -> tuple[tuple[str, str]]:
    """The metadata of a caller with a token."""
    return (("authorization", f"Bearer {token}"),)


async def read_all(call) -> list[object]:
    return [response async for response in call]


async def over(call) -> None:
    """Return when the call has ended, in any way."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        await (read_all(call) if hasattr(call, "__aiter__") else call)


async def error_of(call) -> grpc.aio.AioRpcError:
    """Return the error of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    return error.value


async def extract(stub, text, **settings):
    request = ExtractVectorRequest(text=text, settings=VectorSettings(**settings))
    return await stub.ExtractVector(request)


async def collect(stub, messages):
    """Return the stamp and the results of a stream, by sequence."""
    responses = [response async for response in stub.StreamVectors(iter(messages))]
    assert responses[0].HasField("stamp")
    assert not any(response.HasField("stamp") for response in responses[1:])
    results = [result for response in responses for result in response.results]
    return responses[0].stamp, {result.sequence: result for result in results}


def floats(vector: vectors_pb2.Vector) -> np.ndarray:
    return np.frombuffer(vector.data, "<f4")


async def opened(stub, **options):
    """Open a stream of vectors that the server has admitted, with nothing in it."""
    call = stub.StreamVectors(**options)
    await call.write(SETTINGS)
    assert (await call.read()).HasField("stamp")
    return call


def mean_file(positions: int = 4) -> bytes:
    mean = np.ones((WIDTH, positions), dtype=np.float32)
    return save({"corpus_mean": mean, "counts": np.ones(positions, dtype=np.int64)})


def upload_messages(content: bytes, name: str = "m"):
    upload = means_pb2.CorpusMeanUpload(
        name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    yield means_pb2.UploadCorpusMeanRequest(upload=upload)
    yield means_pb2.UploadCorpusMeanRequest(chunk=content)
