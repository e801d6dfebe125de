"""Bounds on documents in flight, in number and size, however many or large they are."""

import threading
from dataclasses import replace

import pytest

from actvec.client import AsyncClient, Document, Failure, Message
from actvec.client.records.model import UNLIMITED
from actvec.client.records.settings import VectorSettings
from actvec.client.streams import in_flight, vector_stream
from actvec.client.streams.in_flight import cost, costs_of
from actvec.client.streams.vector_stream import window_for
from tests.waiting import wait_until

# Results handed to a reader that it may not have looked at yet.
HANDED = 64


def test_tiny_documents_are_drawn_within_the_window(client):
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


def test_slow_reader_stops_the_drawing(client):
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
    # Meanwhile other work continues, and the stream draws no more than the window and one batch.
    assert client.extract("Another text.", mode="short").tokens
    assert drawn <= window + HANDED
    stream.close()


@pytest.mark.parametrize("form", ["dict", "pair", "message"])
def test_any_form_of_a_chat_counts_its_texts(form):
    text = "a" * 100_000
    message = {
        "dict": {"role": "user", "content": text},
        "pair": ("user", text),
        "message": Message("user", text),
    }[form]
    assert cost({"id": "a", "messages": [message]}) == cost(Document("a", messages=[message])) == 7


class Text(str):
    """A text that counts the characters of all live texts of its kind."""

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


def test_few_huge_documents_are_held(client):
    """They exceed the server's limit, so the client answers them, and holds them no longer."""
    Text.alive = Text.most = 0
    length, window = 5 << 20, 64
    documents = (Document(str(number), Text(length)) for number in range(40))
    results = list(client.stream(documents, mode="short", window=window))
    assert [type(result) for result in results] == [Failure] * 40
    # A window of documents of 16,384 characters, the one that overdraws it, and one being made.
    assert Text.most <= window * 16_384 + 2 * length
    # The thread that reads the corpus lets the last one go when it ends.
    wait_until(lambda: Text.alive == 0)


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


def test_few_long_documents_are_sent(client):
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
    # Those in flight, and as many handed over and not yet looked at.
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
def test_long_text_takes_several_places(item, takes):
    assert cost(item) == takes


def test_window_is_twice_the_servers():
    assert window_for(replace(UNLIMITED, max_stream_documents=100)) == 200
    assert window_for(UNLIMITED) == 1024


def test_large_vectors_are_held_in_small_numbers(client, monkeypatch):
    """With 36 layers and 4 pools of a 12B, a vector has 2.9 MB, and 1024 of them 3 GB."""
    monkeypatch.setattr(in_flight, "_RESULT_BYTES", 1 << 10)
    monkeypatch.setattr(vector_stream, "_BATCH_BYTES", 1)
    settings = VectorSettings(mode="long", layers=range(7), separate=True)
    size = 4 * 7 * 4 * client.info().d_model
    drawn = taken = ahead = 0

    def corpus():
        nonlocal drawn, ahead
        for number in range(60):
            drawn += 1
            ahead = max(ahead, drawn - taken)
            yield f"Text {number}."

    for result in client.stream(corpus(), settings=settings, window=64):
        assert result.values.nbytes == size
        taken += 1
    assert taken == 60
    # Those in flight, one that overdraws, and one in the loop's hands.
    assert ahead <= 64 // (1 + size // 1024) + 2


def test_the_cost_counts_text_and_vector(client):
    info = replace(client.info(), d_model=5120)
    settings = VectorSettings(mode="long", layers=range(36), separate=True)
    of_vector = 4 * 36 * 4 * 5120 // (1 << 18)
    assert of_vector == 11
    count = costs_of(settings, info)
    assert count("x") == 1 + of_vector
    assert count(("id", "x" * 40_000)) == 1 + 2 + of_vector
    assert count({"messages": [{"role": "user", "content": "x" * 40_000}]}) == 1 + 2 + of_vector
    assert count({"token_ids": [1] * 10_000}) == 1 + 2 + of_vector
    assert costs_of(VectorSettings(mode="short"), info)("x") == 1
