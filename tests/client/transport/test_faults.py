"""Broken connections: every document is still answered exactly once."""

import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from numpy.testing import assert_array_equal

from actvec.client import AsyncClient, Client, Failure, ServerUnavailable, StampChanged, Vector

TEXTS = [f"In {year} the bridge was closed for repairs." for year in range(1700, 1820)]


@pytest.fixture(scope="module")
def expected(demo_server):
    """The vectors of an undisturbed stream."""
    with Client(demo_server.target) as client:
        return {result.index: result.values for result in client.stream(TEXTS, mode="short")}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("ordered", [False, True])
def test_cut_stream_answers_each_document_once(demo_server, cutting_proxy, expected, seed, ordered):
    chance = random.Random(seed)  # noqa: S311 - cuts, not secrets
    proxy = cutting_proxy(demo_server.target)
    results = []
    with Client(proxy.target) as client:
        # A window below the corpus, so that the client also draws documents between the cuts.
        for result in client.stream(TEXTS, mode="short", window=16, ordered=ordered):
            if not results:
                proxy.cut_after(*(chance.randrange(1, 30_000) for _ in range(4)))
            results.append(result)
    assert proxy.cuts >= 2
    assert sorted(result.index for result in results) == list(range(len(TEXTS)))
    if ordered:
        assert [result.index for result in results] == list(range(len(TEXTS)))
    for result in results:
        assert_array_equal(result.values, expected[result.index])


async def test_the_asynchronous_client_reconnects_as_well(demo_server, cutting_proxy):
    proxy = cutting_proxy(demo_server.target)
    seen = []
    async with AsyncClient(proxy.target) as client:
        async for result in client.stream(TEXTS, mode="short", window=32):
            seen.append(result.index)
            if len(seen) in (1, 60):
                proxy.cut()
    assert proxy.cuts == 2
    assert sorted(seen) == list(range(len(TEXTS)))


def test_documents_that_failed_are_not_sent_again(demo_server, cutting_proxy):
    texts = [text if number % 10 else "" for number, text in enumerate(TEXTS)]
    proxy = cutting_proxy(demo_server.target)
    results = []
    with Client(proxy.target) as client:
        for result in client.stream(texts, mode="short", window=32):
            results.append(result)
            if len(results) == 50:
                proxy.cut()
    failed = [result.index for result in results if isinstance(result, Failure)]
    assert sorted(failed) == list(range(0, len(TEXTS), 10))
    assert len(results) == len(TEXTS)


def test_cut_before_a_slow_reader_costs_nothing(demo_server, cutting_proxy, breaks, clock):
    """Nothing is outstanding then: the client reconnects once there is a document."""
    proxy = cutting_proxy(demo_server.target)
    answered = threading.Event()

    def corpus():
        yield TEXTS[0]
        assert answered.wait(60)
        proxy.cut()
        breaks.wait()
        # Longer than the limit without progress, which does not run while nobody waits.
        clock.advance(10_000)
        yield TEXTS[1]

    results = []
    with Client(proxy.target, retry_for=6000) as client:
        for result in client.stream(corpus(), mode="short"):
            results.append(result.index)
            answered.set()
    assert results == [0, 1]


def test_cut_after_the_last_answer_ends_the_stream(demo_server, cutting_proxy):
    proxy = cutting_proxy(demo_server.target)
    answered = threading.Event()

    def corpus():
        yield TEXTS[0]
        assert answered.wait(60)
        proxy.refuse()

    results = []
    with Client(proxy.target, retry_for=0.5) as client:
        for result in client.stream(corpus(), mode="short"):
            results.append(result.index)
            answered.set()
    assert results == [0]


def test_absent_server_is_given_up(demo_server, cutting_proxy, caplog, breaks, clock):
    proxy = cutting_proxy(demo_server.target)
    seen = []
    breaks.on_break = lambda: clock.advance(4000)
    with Client(proxy.target, retry_for=6000) as client:
        stream = client.stream(TEXTS, mode="short", window=16)
        seen.append(next(stream).index)
        proxy.refuse()
        with (
            caplog.at_level(logging.WARNING, "actvec.client"),
            pytest.raises(
                ServerUnavailable, match="no reconnection made progress for 6000 seconds"
            ) as error,
        ):
            seen.extend(result.index for result in stream)
    assert "unanswered" in str(error.value)
    # The third break, 8000 seconds after the first, is the last.
    assert caplog.text.count("reconnecting in") == 2
    assert len(seen) == len(set(seen))


def test_returning_server_is_found_again(demo_server, cutting_proxy, breaks):
    proxy = cutting_proxy(demo_server.target)
    results = []

    def fail_once():
        breaks.on_break = return_at_last

    def return_at_last():
        breaks.on_break = lambda: None
        proxy.accept_again()

    with Client(proxy.target) as client:
        for result in client.stream(TEXTS, mode="short", window=32):
            results.append(result.index)
            if len(results) == 10:
                breaks.on_break = fail_once
                proxy.refuse()
    assert sorted(results) == list(range(len(TEXTS)))


@pytest.fixture(scope="module")
def spare_servers(start_server):
    """A server like the shared one, and one of other layers."""
    with ThreadPoolExecutor() as pool:
        options = (["--model=demo"], ["--model=demo", "--layers=1,2,3"])
        return list(pool.map(lambda arguments: start_server(*arguments), options))


def test_draining_server_hands_over_its_rest(demo_server, spare_servers, cutting_proxy):
    leaving = spare_servers[0]
    proxy = cutting_proxy(leaving.target)
    results = []
    with Client(proxy.target) as client:
        for result in client.stream(TEXTS, mode="short", window=32):
            results.append(result)
            if len(results) == 20:
                proxy.redirect(demo_server.target)
                leaving.process.terminate()
    assert leaving.process.wait(30) == 0
    assert sorted(result.index for result in results) == list(range(len(TEXTS)))
    assert all(isinstance(result, Vector) for result in results)


def test_latest_mean_stays_fixed_in_a_stream(demo_server, cutting_proxy):
    proxy, made, results = cutting_proxy(demo_server.target), [], []
    with Client(proxy.target) as client:
        made.append(client.corpus_mean(TEXTS[:3], job="latest-before").id)
        for result in client.stream(TEXTS, mode="short", center="latest", window=32):
            results.append(result)
            if len(results) == 1:
                made.append(client.corpus_mean(TEXTS[:5], job="latest-after").id)
                proxy.cut()
        for mean in made:
            client.delete_mean(mean)
    assert len(results) == len(TEXTS)
    assert {result.stamp.corpus_mean_id for result in results} == {made[0]}


def test_server_of_other_vectors_is_refused(demo_server, spare_servers, cutting_proxy):
    proxy = cutting_proxy(demo_server.target)
    results = []
    with Client(proxy.target) as client:
        stream = client.stream(TEXTS, mode="short", window=32)
        results.append(next(stream))
        proxy.redirect(spare_servers[1].target)
        proxy.cut()
        with pytest.raises(StampChanged, match="start over"):
            results.extend(stream)
    assert len({result.stamp for result in results}) == 1
