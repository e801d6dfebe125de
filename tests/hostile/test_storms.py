"""Proper calls in improper ways: thousands cancelled at once, endless headers."""

import asyncio
import itertools
import random
from collections import Counter

import grpc
import pytest

from actvec.v1 import means_pb2
from actvec.v1.vectors_pb2 import (
    MODE_SHORT,
    Document,
    ExtractVectorRequest,
    StreamVectorsRequest,
    VectorSettings,
)
from tests.hostile.target import SERVICE

SHORT = VectorSettings(mode=MODE_SHORT)
TEXTS = [Document(text=f"text number {n}", sequence=n) for n in range(8)]
EXTRACT = ExtractVectorRequest(text="a text", settings=SHORT).SerializeToString()
JOB = means_pb2.CorpusMeanJob(job="storm", take_over=True)
DOCUMENTS = means_pb2.CorpusMeanDocuments(documents=TEXTS)
UPLOAD = means_pb2.CorpusMeanUpload(name="storm", size_bytes=1 << 20, sha256="0" * 64)

# The first message of a call, per method.
BEGINNINGS = {
    "ExtractVector": [EXTRACT],
    "StreamVectors": [
        StreamVectorsRequest(settings=SHORT, documents=TEXTS).SerializeToString(),
    ],
    "StreamCorpusMean": [
        means_pb2.StreamCorpusMeanRequest(open=JOB).SerializeToString(),
        means_pb2.StreamCorpusMeanRequest(documents=DOCUMENTS).SerializeToString(),
    ],
    "UploadCorpusMean": [
        means_pb2.UploadCorpusMeanRequest(upload=UPLOAD).SerializeToString(),
        means_pb2.UploadCorpusMeanRequest(chunk=bytes(1 << 16)).SerializeToString(),
    ],
}

# Calls at a time in a storm.
AT_ONCE = 500


async def cut_short(channel: grpc.aio.Channel, method: str, pause: float) -> str:
    """Start a call and cancel it after a while; return how it ended."""
    call = channel.stream_stream(f"{SERVICE}/{method}")()
    try:
        for message in BEGINNINGS[method]:
            await call.write(message)
        await asyncio.sleep(pause)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    call.cancel()
    # The words of gRPC's own client if a call ended before a message could be written.
    if await call.details() == "Internal error from Core":
        return "over before"
    return (await call.code()).name


@pytest.mark.parametrize("method", BEGINNINGS)
def test_cancelled_calls_leave_nothing(target, amount, method):
    seeds = itertools.count()

    def storm(calls):
        chance = random.Random(next(seeds))  # noqa: S311 - pauses, not secrets

        async def all_of_them() -> Counter[str]:
            ends: Counter[str] = Counter()
            async with grpc.aio.insecure_channel(target.server.target) as channel:
                for begin in range(0, calls, AT_ONCE):
                    together = min(AT_ONCE, calls - begin)
                    ends.update(
                        await asyncio.gather(
                            *(
                                cut_short(channel, method, chance.choice([0, 0, 0.01, 0.1]))
                                for _ in range(together)
                            )
                        )
                    )
            return ends

        return asyncio.run(all_of_them())

    target.endure(f"{method} cancelled, {AT_ONCE} at once", amount(short=400, long=10_000), storm)


def many_entries(chance):
    return [(f"x-{n}", "y") for n in range(chance.choice([10, 200, 3000]))]


def long_entries(chance):
    return [("x-long", "y" * chance.choice([100, 8_000, 16_000, 500_000]))]


def binary_entries(chance):
    return [("x-bytes-bin", chance.randbytes(chance.choice([10, 5000, 20_000])))]


def strange_requests(chance):
    """Unknown ids and tokens."""
    return [
        ("x-request-id", chance.choice(["", "y" * 5000, "a b", "%0a%0d"])),
        (
            "authorization",
            chance.choice(["", "Bearer", "Bearer ", "Basic Zm9v", "Bearer " + "y" * 99]),
        ),
        ("grpc-accept-encoding", chance.choice(["gzip", "nonsense", "identity,deflate"])),
    ]


@pytest.mark.parametrize(
    "entries",
    [many_entries, long_entries, binary_entries, strange_requests],
    ids=["many", "long", "binary", "strange"],
)
def test_headers_without_measure_cost_their_call_alone(target, amount, entries):
    seeds = itertools.count()

    def storm(calls):
        chance = random.Random(next(seeds))  # noqa: S311 - lengths, not secrets
        ends: Counter[str] = Counter()
        with grpc.insecure_channel(target.server.target) as channel:
            extract = channel.unary_unary(f"{SERVICE}/ExtractVector")
            for _ in range(calls):
                try:
                    extract(EXTRACT, metadata=entries(chance), timeout=60)
                    ends["OK"] += 1
                except grpc.RpcError as error:
                    ends[error.code().name] += 1
        return ends

    name = entries.__name__.replace("_", " ")
    target.endure(f"headers: {name}", amount(short=30, long=100), storm)
