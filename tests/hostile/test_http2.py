"""Traffic on gRPC's port that is not gRPC: answered as HTTP/2 requires, or cut, and forgotten."""

import asyncio
import contextlib
import itertools
import random
import socket
import ssl
import struct
from collections import Counter

import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from actvec.v1.vectors_pb2 import (
    MODE_LONG,
    MODE_SHORT,
    VECTOR_ENCODING_VALUES,
    Document,
    ExtractVectorRequest,
    StreamVectorsRequest,
    VectorSettings,
)
from tests.hostile.target import SERVICE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = SettingsFrame(0).serialize()
AT_ONCE = 64

# Frames on one connection of a flood, and bytes of one with large frames.
FLOOD = 1000
FLOOD_BYTES = 1 << 18


def frames(*sent) -> bytes:
    return b"".join(frame.serialize() for frame in sent)


def headers(stream, method="ExtractVector", *, end=True, more=()):
    """The headers of a call."""
    block = Encoder().encode(
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"{SERVICE}/{method}"),
            (":authority", "target"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *more,
        ]
    )
    return HeadersFrame(stream, data=block, flags=["END_HEADERS"] if end else [])


def message(stream, request, *flags) -> DataFrame:
    content = request.SerializeToString()
    return DataFrame(stream, data=b"\0" + struct.pack(">I", len(content)) + content, flags=flags)


def streams():
    """The stream numbers of a client."""
    return itertools.count(1, 2)


def random_bytes(chance):
    return chance.randbytes(chance.randint(1, 4000))


def random_frames(chance):
    """Frames of any type, flags and stream, some with wrong lengths."""
    sent = b""
    for _ in range(chance.randint(1, 30)):
        content = chance.randbytes(chance.choice([0, 4, 5, 6, 8, chance.randint(0, 200)]))
        length = len(content) if chance.random() < 0.9 else chance.getrandbits(24)
        stream = chance.choice([0, 1, 2, 3, chance.getrandbits(32)])
        kind = chance.choice([*range(10), chance.getrandbits(8)])
        head = struct.pack(">I", length)[1:] + bytes([kind, chance.getrandbits(8)])
        sent += head + struct.pack(">I", stream) + content
    return PREFACE + SETTINGS + sent


def random_messages(chance):
    """A call that starts well, with a message in wrong frames."""
    length = chance.choice([0, 1, 10, 2**24, 2**32 - 1])
    content = bytes([chance.getrandbits(8)]) + struct.pack(">I", length) + chance.randbytes(20)
    call = frames(headers(1), DataFrame(1, data=content, flags=["END_STREAM"]))
    return PREFACE + SETTINGS + call


def upgrade(_):
    return (
        b"GET / HTTP/1.1\r\nHost: target\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
    )


def http1(chance):
    return (
        b"POST /%s HTTP/1.1\r\nContent-Length: 99999\r\n\r\n" % chance.randbytes(20).hex().encode()
    )


def tls_hello(_):
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="target").do_handshake()
    return outgoing.read()


def half_a_preface(chance):
    return PREFACE[: chance.randint(1, len(PREFACE) - 1)]


def rapid_reset(_):
    """Calls cancelled at once, all on one connection (CVE-2023-44487)."""
    request = ExtractVectorRequest(text="a text", settings=VectorSettings(mode=MODE_SHORT))
    calls = itertools.islice(streams(), FLOOD)
    sent = [
        frames(headers(n), message(n, request, "END_STREAM"), RstStreamFrame(n, error_code=8))
        for n in calls
    ]
    return PREFACE + SETTINGS + b"".join(sent)


def continuation_flood(_):
    """Endless headers (CVE-2024-27316)."""
    block = Encoder().encode([(f"x-{n}", "y" * 100) for n in range(100)])
    endless = [ContinuationFrame(1, data=block)] * (FLOOD_BYTES // len(block))
    return PREFACE + SETTINGS + frames(headers(1, end=False), *endless)


def hpack_bomb(_):
    """One long header in the table, repeated in one byte each."""
    encoder = Encoder()
    block = encoder.encode([("x-bomb", "y" * 3000)])
    # 0xbe: the newest entry of the dynamic table, as often as fits a frame.
    block += b"\xbe" * ((1 << 14) - len(block))
    return PREFACE + SETTINGS + frames(HeadersFrame(1, data=block, flags=["END_HEADERS"]))


def settings_flood(_):
    return PREFACE + frames(*[SettingsFrame(0, settings={4: n}) for n in range(1, FLOOD)])


def ping_flood(_):
    return PREFACE + SETTINGS + frames(*[PingFrame(0, opaque_data=bytes(8))] * FLOOD)


def empty_data_flood(_):
    call = frames(headers(1, "StreamVectors"), *[DataFrame(1)] * FLOOD)
    return PREFACE + SETTINGS + call


def window_overflow(_):
    grow = WindowUpdateFrame(0, window_increment=2**31 - 1)
    return PREFACE + SETTINGS + frames(grow, grow)


RUBBISH = {
    "random bytes": random_bytes,
    "random frames behind a proper preface": random_frames,
    "calls whose messages are not framed": random_messages,
    "an upgrade to h2c": upgrade,
    "HTTP/1.1": http1,
    "a TLS hello": tls_hello,
    "half a preface": half_a_preface,
    "headers that do not end (CONTINUATION)": continuation_flood,
    "headers that swell when unpacked": hpack_bomb,
    "settings, a thousand a connection": settings_flood,
    "pings, a thousand a connection": ping_flood,
    "empty data, a thousand a connection": empty_data_flood,
    "windows that overflow": window_overflow,
    "calls reset at once, a thousand a connection": rapid_reset,
}
FLOODS = {name for name in RUBBISH if "thousand" in name}


async def thrown(address, sent: bytes, patience: float) -> str:
    """Send bytes over a new connection; return who ended it."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(sent)
        await asyncio.wait_for(writer.drain(), patience)
        while await asyncio.wait_for(reader.read(1 << 16), patience):
            pass
    except TimeoutError:
        return "left open, closed by us"
    except ConnectionError:
        return "cut by the server"
    else:
        return "closed by the server"
    finally:
        writer.transport.abort()


def storm_of(target, rubbish, seed, patience):
    """Send the same rubbish over many connections, some at once."""

    def storm(connections):
        chance = random.Random(next(seed))  # noqa: S311 - rubbish, not secrets

        async def throw():
            places = asyncio.Semaphore(AT_ONCE)

            async def one():
                async with places:
                    return await thrown(target.address, rubbish(chance), patience)

            return await asyncio.gather(*(one() for _ in range(connections)))

        return Counter(asyncio.run(throw()))

    return storm


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_ends_its_connection_alone(target, amount, name):
    connections = amount(short=8, long=20) if name in FLOODS else amount(short=40, long=1000)
    storm = storm_of(target, RUBBISH[name], itertools.count(), patience=0.1)
    target.endure(f"HTTP/2: {name}", connections, storm)


def test_unread_streams_go_with_their_connection(target, amount):
    """Windows of no bytes: the server may send nothing, and gets many requests."""
    closed = SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}).serialize()
    settings = VectorSettings(mode=MODE_LONG, encoding=VECTOR_ENCODING_VALUES)
    documents = [Document(text=f"text {n}", sequence=n) for n in range(50)]
    request = StreamVectorsRequest(settings=settings, documents=documents)

    def slow(_):
        return PREFACE + closed + frames(headers(1, "StreamVectors"), message(1, request))

    # In the long form, the server loses patience first.
    storm = storm_of(target, slow, itertools.count(), patience=amount(short=1, long=3))
    target.endure("streams whose answers nobody reads", amount(short=20, long=200), storm)


def drop(address, *, reset: bool, greet: bool) -> str:
    with socket.create_connection(address) as connection:
        if greet:
            connection.sendall(PREFACE + SETTINGS)
            connection.recv(64)
        if reset:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return f"{'greeted and ' if greet else ''}{'reset' if reset else 'closed'}"


def test_dropped_connections_leave_nothing(target, amount):
    def storm(connections):
        ways = itertools.cycle(itertools.product((False, True), repeat=2))
        return Counter(
            drop(target.address, reset=reset, greet=greet)
            for (reset, greet), _ in zip(ways, range(connections), strict=False)
        )

    target.endure("connections opened and dropped", amount(short=800, long=10_000), storm)
