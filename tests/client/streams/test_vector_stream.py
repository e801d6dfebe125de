"""Streams of many documents: each is answered once, lazily, and left cleanly."""

import asyncio
import gc
import subprocess
import sys
import threading

import pytest
from numpy.testing import assert_array_equal

from actvec.client import (
    AsyncClient,
    Client,
    ClientClosed,
    Document,
    Failure,
    ServerUnavailable,
    SourceBroken,
    Vector,
)
from tests.waiting import eventually, wait_until

TEXTS = [f"The harbour was built in the year {year}." for year in range(1500, 1620)]


def test_every_document_is_answered_once(client):
    documents = [Document(f"doc-{number}", text) for number, text in enumerate(TEXTS)]
    results = list(client.stream(documents, mode="short"))
    assert sorted(result.index for result in results) == list(range(len(TEXTS)))
    assert all(result.id == documents[result.index].id for result in results)


def test_streamed_vector_equals_a_single_one(client):
    streamed = {result.index: result for result in client.stream(TEXTS, mode="long")}
    for index in (0, 59, 119):
        alone = client.extract(TEXTS[index], mode="long")
        assert_array_equal(streamed[index].values, alone.values)
        assert streamed[index].stamp == alone.stamp
        assert streamed[index].text_sha256 == alone.text_sha256


def test_bare_texts_are_named_by_their_position(client):
    results = client.stream(TEXTS[:3], mode="short", ordered=True)
    assert [result.id for result in results] == ["0", "1", "2"]


def test_ids_may_repeat(client):
    results = list(client.stream([Document("same", text) for text in TEXTS[:9]], mode="short"))
    assert sorted(result.index for result in results) == list(range(9))


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_order_is_kept_on_request(client, window):
    documents = [text if number % 5 else "" for number, text in enumerate(TEXTS)]
    results = client.stream(documents, mode="short", ordered=True, window=window)
    assert [result.index for result in results] == list(range(len(documents)))


def test_bad_document_is_its_own_failure(client):
    limit = client.info().limits.max_text_bytes
    documents = [
        "good",
        " ",
        Document("big", "x" * (limit + 1)),
        Document("half", "\ud800"),
        Failure("unread", "DATA_LOSS", "no such luck"),
        "good again",
    ]
    results = list(client.stream(documents, mode="short", ordered=True))
    assert [type(result) for result in results] == [Vector, *[Failure] * 4, Vector]
    assert [result.code for result in results[1:5]] == [
        "INVALID_ARGUMENT",
        "RESOURCE_EXHAUSTED",
        "INVALID_ARGUMENT",
        "DATA_LOSS",
    ]
    assert [result.id for result in results[1:5]] == ["1", "big", "half", "unread"]
    assert str(limit) in results[2].message


def test_no_documents_are_no_results(client):
    assert list(client.stream([], mode="short")) == []
    assert list(client.stream(iter(()), mode="short", ordered=True)) == []


def test_documents_are_drawn_within_the_window(client):
    drawn = 0

    def corpus():
        nonlocal drawn
        for text in TEXTS:
            drawn += 1
            yield text

    taken = 0
    for _ in client.stream(corpus(), mode="short", window=8):
        taken += 1
        # Those in flight, and at most as many handed over and not yet looked at.
        assert drawn <= taken + 2 * 8
    assert taken == len(TEXTS)


def test_slow_reader_delays_no_finished_result(client):
    given = threading.Event()

    def corpus():
        yield TEXTS[0]
        assert given.wait(60), "the first result waited for the second document"
        yield TEXTS[1]

    for _ in client.stream(corpus(), mode="short"):
        given.set()


def test_readers_error_comes_after_its_results(client):
    def corpus():
        yield from TEXTS[:5]
        raise OSError("the disk is gone")

    results = []
    with pytest.raises(OSError, match="the disk is gone"):
        results.extend(client.stream(corpus(), mode="short"))
    assert sorted(result.index for result in results) == [0, 1, 2, 3, 4]


def test_reader_that_exits_has_no_end(client):
    def corpus():
        yield from TEXTS[:5]
        sys.exit("line 6 is bad")

    results = []
    with pytest.raises(SourceBroken, match="SystemExit: line 6 is bad"):
        results.extend(client.stream(corpus(), mode="short"))
    assert sorted(result.index for result in results) == [0, 1, 2, 3, 4]
    with pytest.raises(SourceBroken):
        client.corpus_mean(corpus(), job="left")
    assert "left" not in {mean.name for mean in client.list_means()}


async def test_cancelled_async_reader_has_no_end(demo_server):
    async def corpus():
        for text in TEXTS[:5]:
            yield text
        waiting = asyncio.create_task(asyncio.sleep(60))
        waiting.cancel()
        await waiting

    results = []
    async with AsyncClient(demo_server.target) as client:
        with pytest.raises(SourceBroken, match="CancelledError"):
            async for result in client.stream(corpus(), mode="short"):
                results.append(result)  # noqa: PERF401 - what came before the error counts
    assert len(results) == 5


@pytest.mark.parametrize("documents", [None, 5, [3], "a text", Document("a", "text")])
def test_single_document_is_a_type_error(client, documents):
    with pytest.raises(TypeError):
        list(client.stream(documents, mode="short"))


def test_a_wrong_window_is_refused_at_once(client):
    with pytest.raises(ValueError, match="window"):
        client.stream(TEXTS, mode="short", window=0)


def test_absent_server_is_reported_before_any_read():
    with Client("127.0.0.1:1") as client, pytest.raises(ServerUnavailable):
        list(client.stream(TEXTS, mode="short"))


async def test_async_iterables_are_drawn_as_lazily(demo_server):
    drawn = 0

    async def corpus():
        nonlocal drawn
        for text in TEXTS:
            drawn += 1
            yield text

    taken = 0
    async with AsyncClient(demo_server.target) as client:
        async for _ in client.stream(corpus(), mode="short", window=8):
            taken += 1
            assert drawn <= taken + 2 * 8
    assert taken == len(TEXTS)


async def test_streams_of_one_client_are_independent(demo_server):
    async def run(client: AsyncClient, texts: list[str]) -> list[int]:
        return [result.tokens async for result in client.stream(texts, mode="short", ordered=True)]

    async with AsyncClient(demo_server.target) as client:
        first, second = await asyncio.gather(run(client, TEXTS), run(client, TEXTS[::-1]))
    assert first == second[::-1]


async def test_early_stop_leaves_nothing_behind(demo_server):
    before = asyncio.all_tasks()
    async with AsyncClient(demo_server.target) as client:
        stream = client.stream((text for text in TEXTS * 1000), mode="short")
        await anext(stream)
        await stream.aclose()
        assert (await client.extract(TEXTS[0], mode="short")).tokens
    # grpc's own tasks end by themselves.
    await eventually(lambda: asyncio.all_tasks() == before)


def test_reading_thread_ends_with_the_stream(client):
    for _ in client.stream((text for text in TEXTS * 1000), mode="short"):
        break
    gc.collect()
    wait_until(lambda: "actvec-documents" not in {one.name for one in threading.enumerate()})


async def test_closing_the_client_ends_its_streams(demo_server):
    client = AsyncClient(demo_server.target)
    stream = client.stream((text for text in TEXTS * 1000), mode="short")
    await anext(stream)
    await client.close()
    with pytest.raises(ClientClosed):
        async for _ in stream:
            pass


LEAVE_EARLY = """
import asyncio, sys
from actvec.client import AsyncClient, Client

def corpus():
    number = 0
    while True:
        yield f"document {(number := number + 1)}"

with Client(sys.argv[1]) as client:
    for result in client.stream(corpus(), mode="short"):
        break

never_closed = Client(sys.argv[1])
stream = never_closed.stream(corpus(), mode="short")
next(stream)

async def leave():
    async with AsyncClient(sys.argv[1]) as client:
        async for result in client.stream(corpus(), mode="short"):
            break

asyncio.run(leave())
"""


def test_leaving_early_prints_nothing(demo_server):
    program = subprocess.run(
        [sys.executable, "-W", "always", "-c", LEAVE_EARLY, demo_server.target],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (program.returncode, program.stdout, program.stderr) == (0, "", "")
