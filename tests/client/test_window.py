"""What is in flight is bounded, in number and in size, however many or large the documents."""

import threading
from dataclasses import replace

import pytest

from actvec.client import AsyncClient, Document, Failure
from actvec.client.model import UNLIMITED
from actvec.client.streaming import window_for
from actvec.client.work import cost

# Results that a reader has been handed and may not have looked at yet.
HANDED = 64


def test_twenty_thousand_tiny_documents_are_drawn_as_the_window_allows(client):
    """Most of them blank, which the server answers without its model."""
    drawn = taken = ahead = 0

    def corpus():
        nonlocal drawn, ahead
        for number in range(20_000):
            drawn += 1
            ahead = max(ahead, drawn - taken)
            yield "A word." if number % 40 == 0 else " "

    for _ in client.stream(corpus(), mode="short"):
        taken += 1
    window = window_for(client.info().limits)
    assert taken == 20_000
    assert ahead <= window + HANDED


def test_a_reader_that_stops_reading_stops_the_drawing(client):
    drawn = 0
    full = threading.Event()
    window = window_for(client.info().limits)

    def corpus():
        nonlocal drawn
        while True:
            drawn += 1
            if drawn == window + 1:
                full.set()
            yield " "

    stream = client.stream(corpus(), mode="short")
    next(stream)
    assert full.wait(30)
    # Other work goes on meanwhile, and nothing more is drawn than the window and one batch.
    assert client.extract("Another text.", mode="short").tokens
    assert drawn <= window + HANDED
    stream.close()


class Text(str):
    """A text that knows how much of its kind is alive, in characters."""

    alive = most = 0
    lock = threading.Lock()

    def __new__(cls, length):
        text = super().__new__(cls, "x" * length)
        with cls.lock:
            cls.alive += length
            cls.most = max(cls.most, cls.alive)
        return text

    def __del__(self):
        with Text.lock:
            Text.alive -= len(self)


def test_huge_documents_are_held_few_at_a_time(client):
    """More than the server takes, so that they are answered here: they are held no longer."""
    Text.alive = Text.most = 0
    length, window = 5 << 20, 64
    documents = (Document(str(number), Text(length)) for number in range(40))
    results = list(client.stream(documents, mode="short", window=window))
    assert [type(result) for result in results] == [Failure] * 40
    # A window of documents of 16,384 characters, the one that overdraws it, and one in the making.
    assert Text.most <= window * 16_384 + 2 * length
    assert Text.alive == 0


async def test_of_an_async_iterable_as_well(demo_server):
    Text.alive = Text.most = 0
    length, window = 5 << 20, 64

    async def corpus():
        for number in range(40):
            yield Document(str(number), Text(length))

    async with AsyncClient(demo_server.target) as client:
        results = [result async for result in client.stream(corpus(), mode="short", window=window)]
    assert len(results) == 40
    assert Text.most <= window * 16_384 + 2 * length


def test_long_documents_that_are_sent_are_as_few(client):
    """Four of them take a window of sixteen short ones."""
    drawn = taken = ahead = 0

    def corpus():
        nonlocal drawn, ahead
        for _ in range(24):
            drawn += 1
            ahead = max(ahead, drawn - taken)
            yield "word " * 10_000

    for _ in client.stream(corpus(), mode="short", truncation="error", window=16):
        taken += 1
    assert taken == 24
    # Those in flight, and as many that were handed over and not looked at yet.
    assert ahead <= 2 * 4


@pytest.mark.parametrize(
    ("item", "takes"),
    [
        ("", 1),
        ("x" * 16_383, 1),
        ("x" * 16_384, 2),
        (Document("d", "x" * (1 << 20)), 65),
        (Failure("d", "DATA_LOSS", "gone"), 1),
    ],
    ids=["blank", "short", "long", "huge", "unread"],
)
def test_a_long_text_takes_the_place_of_several(item, takes):
    assert cost(item) == takes


def test_the_window_is_twice_what_the_server_has_inside():
    assert window_for(replace(UNLIMITED, max_stream_documents=100)) == 200
    assert window_for(UNLIMITED) == 1024
