"""Messages of any size: measured before they are parsed, and dropped after use."""

import gc
import sys
import threading

import pytest

from actvec.server.budget import Budget, purse
from actvec.server.config import Limits
from actvec.server.errors import BusyError, MessageTooLargeError, RequestError
from actvec.server.rpc import decoding, wire
from actvec.server.rpc.decoding import Decoder
from actvec.v1 import means_pb2, model_pb2
from actvec.v1.vectors_pb2 import Document, StreamVectorsRequest
from tests.server.calling import EXHAUSTED, SETTINGS, collect, error_of, opened, some_documents
from tests.waiting import eventually

EMPTY = b"\x12\x00"
VECTORS = Decoder(StreamVectorsRequest.DESCRIPTOR, 4096)
MERGE = Decoder(means_pb2.MergeCorpusMeansRequest.DESCRIPTOR, 4096)


@pytest.fixture
def parsed(monkeypatch):
    """The sizes of the messages that were built."""
    sizes = []
    parse = Decoder._parse

    def noted(self, raw):
        sizes.append(len(raw))
        return parse(self, raw)

    monkeypatch.setattr(Decoder, "_parse", noted)
    return sizes


def walked(monkeypatch) -> list[int]:
    """The number of fields that walks pass."""
    seen = [0]
    fields = decoding.fields_of

    def counted(*args):
        for field in fields(*args):
            seen[0] += 1
            yield field

    for module in (decoding, wire):
        monkeypatch.setattr(module, "fields_of", counted)
    return seen


@pytest.mark.parametrize(
    ("decoder", "raw", "field"),
    [
        (VECTORS, EMPTY * 8_388_503 + b"\x12\x03\x12\x01\xff", "documents"),
        (VECTORS, EMPTY * 8_388_603, "documents"),
        (VECTORS, b"\x1a\x00" * 8_388_603, "request"),
        (VECTORS, b"\x12\x80\x80\x80\x04" + b"\x1a\x00" * 4_194_304, "request"),
        (VECTORS, b"\x0a\x04\x22\x02xx" * 2_796_000, "request"),
        (MERGE, b"\x0a\x01m" * 3_000_000, "corpus_means"),
    ],
    ids=["broken", "empty", "unknown", "in a document", "joined", "names"],
)
def test_too_many_parts_are_refused_unbuilt(parsed, monkeypatch, decoder, raw, field):
    seen = walked(monkeypatch)
    with pytest.raises(MessageTooLargeError) as error:
        decoder.parse(raw)
    assert error.value.field == field
    assert not parsed
    assert seen[0] <= 16 * 4096 + 2


def test_walk_leaves_field_zero_to_protobuf():
    # Protobuf takes it in a message without fields, and in no other.
    raw = b"\x00\x00" * 3
    assert Decoder(model_pb2.GetModelInfoRequest.DESCRIPTOR, 1).walk(raw) == 3
    with pytest.raises(RequestError):
        MERGE.parse(raw)


def test_documents_in_pieces_count_together():
    four = means_pb2.StreamCorpusMeanRequest(
        documents=means_pb2.CorpusMeanDocuments(documents=[Document(text="x" * 2000)] * 4)
    ).SerializeToString()
    decoder = Decoder(means_pb2.StreamCorpusMeanRequest.DESCRIPTOR, 7)
    assert len(decoder.parse(four).documents.documents) == 4
    # protobuf joins the two halves into one list.
    with pytest.raises(MessageTooLargeError, match=r"documents\.documents: are more than 7"):
        decoder.parse(four * 2)


@pytest.mark.parametrize("size", [10, 10_000, 100_000], ids=["tiny", "small", "large"])
async def test_a_broken_string_is_named(size):
    good = StreamVectorsRequest(documents=[Document(text="a" * size)]).SerializeToString()
    with pytest.raises(RequestError, match=r"documents\[1\]\.text: is not UTF-8"):
        await VECTORS.one(good + b"\x12\x03\x12\x01\xff")
    for cut in (good[:-1], good + b"\x12\x05a", b"\x0f" * size):
        with pytest.raises(RequestError, match=r"is not a .*StreamVectorsRequest message"):
            await VECTORS.one(cut)


def test_explaining_walks_no_more_than_the_message(monkeypatch):
    seen = walked(monkeypatch)
    broken = SETTINGS.SerializeToString() + b"\x12\x03\x12\x01\xff" * 800
    with pytest.raises(RequestError, match=r"documents\[0\]\.text"):
        VECTORS.parse(broken)
    assert seen[0] < 10


async def test_large_messages_leave_the_event_loop_free(monkeypatch):
    threads = []
    parse = Decoder._parse
    monkeypatch.setattr(
        Decoder, "_parse", lambda *a: threads.append(threading.current_thread()) or parse(*a)
    )
    for size in (100, 1 << 20):
        request = StreamVectorsRequest(documents=[Document(text="a" * size)])
        assert await VECTORS.one(request.SerializeToString()) == request
    assert threads[0] is threading.main_thread()
    assert threads[1] is not threading.main_thread()


async def test_purse_holds_a_message_until_the_next():
    budget = Budget(Limits())
    raws = [StreamVectorsRequest(documents=[Document(text="a" * 5000)] * n) for n in (3, 1)]

    async def arriving():
        for message in raws:
            assert not budget.held
            yield message.SerializeToString()

    with budget.of_call("a"):
        held = []
        messages = VECTORS.messages(arriving())
        async for message in messages:
            held.append(budget.held - 2 * message.ByteSize())
            # a document and its text, each a field
            assert held[-1] == 128 * 2 * len(message.documents)
            del message
        assert len(held) == 2
        purse().take(1000)
        assert budget.held == 1000
    assert not budget.held


async def test_bytes_are_bounded_per_caller_and_overall():
    budget = Budget(Limits(caller_bytes=100, memory_bytes=150))
    with budget.of_call("a") as first, budget.of_call("a") as second, budget.of_call("b") as other:
        first.take(60)
        with pytest.raises(
            BusyError, match=r"your calls hold 60 bytes .* needs 41 .* limit is 100"
        ):
            second.take(41)
        second.take(40)
        with pytest.raises(BusyError, match=r"calls hold 100 bytes .* needs 51 .* limit is 150"):
            other.take(51)
        first.give(60)
        other.take(51)
        assert budget.held == 91
    with budget.of_call("a") as alone:
        # An item larger than everything is still accepted alone.
        alone.take(1000)
    assert not budget.held


async def test_stream_refuses_too_many_documents(serve):
    async with serve(message_documents=100) as (_, stub):
        call = await opened(stub)
        await call.write(some_documents(*[f"text {n} " + "x" * 40 for n in range(101)]))
        error = await error_of(call)
        assert error.code() is EXHAUSTED
        assert error.details().startswith("documents: are more than 100")
        _, results = await collect(stub, [some_documents("a text")])
        assert results[0].vector.tokens


async def test_an_idle_stream_keeps_no_message(serve, monkeypatch):
    kept = []
    parse = Decoder._parse

    def noted(self, raw):
        kept.append(parse(self, raw))
        return kept[-1]

    def holders() -> int:
        """The number of references to a message, or a document of one, beside this test's."""
        documents = [
            document
            for message in kept
            for document in getattr(message.documents, "documents", message.documents)
        ]
        # `kept` or `documents`, their sum, and the argument belong to this test.
        return max(map(sys.getrefcount, kept + documents)) - 3

    monkeypatch.setattr(Decoder, "_parse", noted)
    async with serve() as (_, stub):
        vectors = await opened(stub)
        await vectors.write(StreamVectorsRequest(documents=some_documents("a", "b").documents))
        assert len((await vectors.read()).results)
        mean = stub.StreamCorpusMean()
        job = means_pb2.StreamCorpusMeanRequest(open=means_pb2.CorpusMeanJob(job="idle"))
        await mean.write(job)
        assert (await mean.read()).HasField("opened")
        documents = means_pb2.CorpusMeanDocuments(documents=some_documents("a", "b").documents)
        await mean.write(means_pb2.StreamCorpusMeanRequest(documents=documents))
        while (await mean.read()).progress.documents < 2:
            pass
        assert len(kept) == 4
        await eventually(lambda: holders() == 0)
        for call in (vectors, mean):
            call.cancel()


async def test_caller_keeps_to_its_bytes(serve, held_engine):
    # The first message waits for room behind a document being computed.
    message = StreamVectorsRequest(documents=[Document(text="word " * 200)] * 4)
    limits = {"caller_bytes": 300_000, "queued_tokens": 1, "stream_documents": 8}
    async with serve(held_engine, **limits) as (_, stub):
        first = await opened(stub)
        await first.write(message)
        await held_engine.entered()
        second = await opened(stub)
        await second.write(message)
        error = await error_of(second)
        assert error.code() is EXHAUSTED
        assert error.details().startswith("your calls hold ")
        assert "grpc-retry-pushback-ms" in dict(error.trailing_metadata())
        held_engine.release()
        first.cancel()


async def test_an_error_keeps_no_message(serve, monkeypatch):
    raws = []
    walk = Decoder.walk

    def noted(self, raw):
        raws.append(raw)
        return walk(self, raw)

    monkeypatch.setattr(Decoder, "walk", noted)
    async with serve(message_documents=100) as (_, stub):
        for _ in range(3):
            call = await opened(stub)
            await call.write(StreamVectorsRequest(documents=[Document(text="x" * 50)] * 101))
            assert (await error_of(call)).code() is EXHAUSTED
        gc.disable()
        try:
            # `raws`, and the argument
            await eventually(lambda: max(map(sys.getrefcount, raws)) == 2)
        finally:
            gc.enable()
    assert len(raws) == 3
