"""Legal requests that try to leave nothing for anybody else, and a small call among them.

`python -m tests.hostile.crowding TARGET METRICS_PORT BYTES` runs all of them until it is killed.
"""

import asyncio
import contextlib
import hashlib
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

import grpc
import numpy as np
from safetensors.numpy import save

from actvec.server.model.demo import WIDTH
from actvec.v1 import means_pb2
from actvec.v1.vectors_pb2 import (
    MODE_SHORT,
    TRUNCATION_KEEP_START,
    Document,
    ExtractVectorRequest,
    StreamVectorsRequest,
    VectorSettings,
)
from tests.hostile.target import SERVICE

MEAN = "crowding"
SETTINGS = StreamVectorsRequest(settings=VectorSettings(mode=MODE_SHORT)).SerializeToString()
SMALL = ExtractVectorRequest(
    text="The tide comes back twice a day.", settings=VectorSettings(mode=MODE_SHORT)
).SerializeToString()

_ANY_SIZE = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_OWN = [*_ANY_SIZE, ("grpc.use_local_subchannel_pool", 1)]


@dataclass(frozen=True)
class Crowd:
    """The server to crowd, and the size of large messages.

    Attributes:
        target: HOST:PORT.
        metrics_port: The port of its metrics; 0 without.
        size: Bytes of a large message; a text has four fifths of it, a mean's file 16 times as
            many.
        patience: Seconds that a silent connection stays, if the server does not cut it.
    """

    target: str
    metrics_port: int
    size: int
    patience: float = 2.0

    def channel(self) -> grpc.aio.Channel:
        """A new connection."""
        return grpc.aio.insecure_channel(self.target, options=_OWN)


Attack = Callable[[Crowd], Awaitable[str]]


async def _ends(call, messages: Iterable[bytes], *, read: bool = True) -> str:
    """Send and read a call to its end, and return how it ended."""
    try:
        with contextlib.suppress(asyncio.InvalidStateError):
            for message in messages:
                await call.write(message)
            await call.done_writing()
        while read and await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError:
        pass
    if await call.details() == "Internal error from Core":
        return "over before"
    return (await call.code()).name


async def _call(crowd: Crowd, method: str, *messages: bytes) -> str:
    async with crowd.channel() as channel:
        return await _ends(channel.stream_stream(f"{SERVICE}/{method}")(timeout=120), messages)


async def broken_message(crowd: Crowd) -> str:
    """Empty documents, and a last one that is not UTF-8."""
    empty = b"\x12\x00" * ((crowd.size - len(SETTINGS) - 200) // 2)
    return await _call(crowd, "StreamVectors", SETTINGS, empty + b"\x12\x03\x12\x01\xff")


async def empty_documents(crowd: Crowd) -> str:
    """Empty documents in messages of the largest size, and in accepted ones."""
    large = b"\x12\x00" * (crowd.size // 2 - 100)
    taken = b"\x12\x00" * 512
    return await _call(crowd, "StreamVectors", SETTINGS, taken, large)


async def fields_of_nobody(crowd: Crowd) -> str:
    """Fields that the contract lacks."""
    return await _call(crowd, "StreamVectors", SETTINGS, b"\x7a\x00" * (crowd.size // 2 - 100))


async def merge_of_one(crowd: Crowd) -> str:
    """A merge that names one mean as often as a message holds."""
    name = means_pb2.MergeCorpusMeansRequest(name="all").SerializeToString()
    return await _call(crowd, "MergeCorpusMeans", name + b"\x0a\x01m" * (crowd.size // 3 - 100))


async def large_texts(crowd: Crowd) -> str:
    """Texts cut to the context after they have been tokenized."""
    settings = VectorSettings(mode=MODE_SHORT, truncation=TRUNCATION_KEEP_START)
    text = "word " * (crowd.size // 5 * 4 // 5)
    request = StreamVectorsRequest(settings=settings, documents=[Document(text=text)])
    return await _call(crowd, "StreamVectors", request.SerializeToString())


async def long_texts(crowd: Crowd) -> str:
    """Texts that cannot fit."""
    settings = VectorSettings(mode=MODE_SHORT)
    request = ExtractVectorRequest(text="word " * (crowd.size // 5 * 4 // 5), settings=settings)
    return await _call(crowd, "ExtractVector", request.SerializeToString())


def mean_of(size: int) -> bytes:
    """A file of a mean, 16 times as large."""
    positions = 16 * size // (WIDTH * 12)
    states = np.ones((positions, WIDTH))
    return save(
        {
            "corpus_mean": np.ones((WIDTH, positions), dtype=np.float32),
            "counts": np.ones(positions, dtype=np.int64),
            "sums": states,
        }
    )


def upload_of(content: bytes, name: str) -> Iterator[bytes]:
    """The messages of an upload."""
    upload = means_pb2.CorpusMeanUpload(
        name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    yield means_pb2.UploadCorpusMeanRequest(upload=upload).SerializeToString()
    for start in range(0, len(content), 1 << 20):
        piece = content[start : start + (1 << 20)]
        yield means_pb2.UploadCorpusMeanRequest(chunk=piece).SerializeToString()


_CONTENT: dict[int, bytes] = {}


async def upload(crowd: Crowd) -> str:
    """An upload of a mean that is stored already: received and checked all the same."""
    content = _CONTENT.setdefault(crowd.size, mean_of(crowd.size))
    async with crowd.channel() as channel:
        call = channel.stream_stream(f"{SERVICE}/UploadCorpusMean")(timeout=120)
        return await _ends(call, upload_of(content, MEAN))


async def unread_download(crowd: Crowd) -> str:
    """A download whose file is never read."""
    request = means_pb2.DownloadCorpusMeanRequest(corpus_mean=MEAN).SerializeToString()
    async with crowd.channel() as channel:
        call = channel.stream_stream(f"{SERVICE}/DownloadCorpusMean")(timeout=120)
        await call.write(request)
        await call.done_writing()
        try:
            await call.read()
        except grpc.aio.AioRpcError as error:
            return error.code().name
        await asyncio.sleep(crowd.patience / 2)
        call.cancel()
        return "left unread"


async def silent_connection(crowd: Crowd) -> str:
    """A silent connection."""
    host, _, port = crowd.target.rpartition(":")
    return await _silent(host, int(port), crowd.patience)


async def silent_scraper(crowd: Crowd) -> str:
    """A silent connection to the port of metrics."""
    return await _silent("127.0.0.1", crowd.metrics_port, crowd.patience)


async def _silent(host: str, port: int, patience: float) -> str:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        while await asyncio.wait_for(reader.read(1 << 10), patience):
            pass
    except TimeoutError:
        return "left open, closed by us"
    except ConnectionError:
        return "cut by the server"
    else:
        return "closed by the server"
    finally:
        writer.transport.abort()


# Each with how many run at a time.
ATTACKS: dict[str, tuple[Attack, int]] = {
    "messages of empty documents, broken at the end": (broken_message, 2),
    "messages of empty documents": (empty_documents, 8),
    "messages of unknown fields": (fields_of_nobody, 2),
    "merges that name a mean as often as a message holds": (merge_of_one, 2),
    "texts that are cut to a hundredth": (large_texts, 8),
    "texts that cannot fit": (long_texts, 8),
    "uploads of a large mean": (upload, 5),
    "downloads that nobody reads": (unread_download, 20),
    "silent connections": (silent_connection, 300),
    "silent connections to the metrics' port": (silent_scraper, 100),
}


async def storm(crowd: Crowd, attack: Attack, at_once: int, amount: int) -> Counter[str]:
    """Run a number of attacks of a kind; return how they ended."""
    places = asyncio.Semaphore(at_once)

    async def one() -> str:
        async with places:
            return await attack(crowd)

    return Counter(await asyncio.gather(*(one() for _ in range(amount))))


def seconds_of_small_calls(target: str, amount: int) -> list[float]:
    """The seconds of small calls, one after another, the fastest first."""
    seconds = []
    with grpc.insecure_channel(target, _OWN) as channel:
        extract = channel.unary_unary(f"{SERVICE}/ExtractVector")
        for _ in range(amount):
            began = time.perf_counter()
            extract(SMALL, timeout=60)
            seconds.append(time.perf_counter() - began)
            time.sleep(0.02)
    return sorted(seconds)


async def _all_at_once(crowd: Crowd) -> None:
    """Repeat each attack, with random pauses of up to two seconds that keep them apart."""

    async def keep_at(attack: Attack) -> None:
        while True:
            await asyncio.sleep(2 * random.random())  # noqa: S311 - a pause, not a secret
            # If the server ends a call while we write to it, gRPC raises its own errors, too.
            with contextlib.suppress(OSError, grpc.aio.BaseError):
                await attack(crowd)

    print("crowding", flush=True)
    await asyncio.gather(
        *(keep_at(attack) for attack, at_once in ATTACKS.values() for _ in range(at_once))
    )


if __name__ == "__main__":
    # Real attackers have their own machines; here they get only the time that the server leaves.
    os.nice(19)
    asyncio.run(_all_at_once(Crowd(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
