"""Corpus means through the client: each document counted exactly once, whatever breaks."""

import asyncio
import hashlib
import itertools
import random
import signal
import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load, save

from actvec.client import (
    Aborted,
    AsyncClient,
    Client,
    ClientClosed,
    CorpusChanged,
    Document,
    FailedPrecondition,
    Failure,
    InvalidArgument,
    NotFound,
)
from actvec.client.records.means import read_mean
from actvec.client.transport.reconnecting import Reconnection
from actvec.pooling import pooled_mean

names = (f"job-{number}" for number in itertools.count())


def corpus_of(count, seed=0):
    """Documents of 1 to 60 words."""
    chance = random.Random(seed)  # noqa: S311 - texts, not secrets
    words = "river gate stone bell winter ferry lantern orchard".split()  # noqa: SIM905 - prose
    return [
        Document(f"d{number}", " ".join(chance.choices(words, k=chance.randint(1, 60))))
        for number in range(count)
    ]


CORPUS = corpus_of(400)


@pytest.fixture(scope="module")
def undisturbed(demo_server):
    """The mean of the corpus, computed without interruption."""
    with Client(demo_server.target) as client:
        record = client.corpus_mean(CORPUS, job="undisturbed", variance=True)
        return record, load(client.download_mean(record.id).content)


def assert_same_mean(client, record, undisturbed):
    expected, tensors = undisturbed
    found = load(client.download_mean(record.id).content)
    assert (record.documents, record.tokens) == (expected.documents, expected.tokens)
    assert record.corpus_sha256 == expected.corpus_sha256
    assert_array_equal(found["counts"], tensors["counts"])
    assert_allclose(found["sums"], tensors["sums"], rtol=1e-12, atol=1e-12)


def test_the_record_says_what_was_averaged(client, undisturbed):
    record, tensors = undisturbed
    info = client.info()
    assert record.documents == len(CORPUS)
    assert record.tokens == int(tensors["counts"].sum())
    assert (record.d_model, record.max_tokens) == tensors["corpus_mean"].shape
    assert record.name == "undisturbed"
    assert record.has_variance
    assert record.model.layers == info.layers
    assert record.model.revision == info.revision
    assert client.get_mean(record.id) == record
    assert record in client.list_means()


def test_documents_are_named_as_in_the_contract(undisturbed):
    digest = bytes(32)
    for document in CORPUS:
        named = [hashlib.sha256(part.encode()).digest() for part in (document.id, document.text)]
        digest = hashlib.sha256(digest + b"".join(named)).digest()
    assert undisturbed[0].corpus_sha256 == digest.hex()


def test_centering_subtracts_the_pooled_mean(client, undisturbed):
    record, _ = undisturbed
    mean = client.download_mean(record.id).mean
    raw = client.extract(CORPUS[0], mode="long")
    centered = client.extract(CORPUS[0], mode="long", center=record.id)
    assert_allclose(
        raw.values - centered.values, pooled_mean("long", mean, raw.tokens), rtol=1e-5, atol=1e-5
    )
    assert centered.stamp.corpus_mean_sha256 == record.sha256


@pytest.mark.parametrize("seed", range(3))
def test_cut_connections_change_nothing(demo_server, cutting_proxy, undisturbed, seed):
    proxy = cutting_proxy(demo_server.target)
    chance = random.Random(seed)  # noqa: S311 - cuts, not secrets

    with Client(proxy.target) as client:
        proxy.cut_after(*(chance.randrange(100, 500) for _ in range(4)))
        record = client.corpus_mean(CORPUS, job=next(names))
    assert proxy.cuts >= 2
    with Client(demo_server.target) as client:
        assert_same_mean(client, record, undisturbed)


def test_job_survives_a_killed_server(start_server, cutting_proxy, undisturbed, tmp_path):
    first = start_server("--commit-seconds=0", data_dir=tmp_path)
    proxy = cutting_proxy(first.target)
    durable = threading.Event()

    def documents():
        yield from CORPUS[:200]
        assert durable.wait(60)
        first.stop(signal.SIGKILL)
        second = start_server("--commit-seconds=0", data_dir=tmp_path)
        proxy.redirect(second.target)
        yield from CORPUS[200:]

    def watch(progress):
        if progress.committed:
            durable.set()

    with Client(proxy.target) as client:
        record = client.corpus_mean(documents(), job="killed", on_progress=watch)
        assert_same_mean(client, record, undisturbed)


def test_slow_corpus_is_no_stalled_server(start_server, breaks, clock, monkeypatch):
    """Meanwhile the server ends idle calls; drawing documents still counts as progress."""
    server = start_server("--model=demo", "--idle-seconds=0.3", "--commit-seconds=0.1")
    texts = [document.text for document in CORPUS[:4]]
    progressed, progress = threading.Event(), Reconnection.progress

    def noted(reconnection):
        progress(reconnection)
        progressed.set()

    def dies():
        yield from texts[:3]
        raise OSError("the disk with the corpus is gone")

    def slowly():
        for text in texts:
            breaks.wait()
            clock.advance(400)
            progressed.clear()
            yield text
            assert progressed.wait(60)

    with Client(server.target, retry_for=600) as client:
        with pytest.raises(OSError, match="is gone"):
            client.corpus_mean(dies(), job="slow")
        monkeypatch.setattr(Reconnection, "progress", noted)
        record = client.corpus_mean(slowly(), job="slow")
    assert record.documents == 4


def test_job_survives_a_killed_program(demo_server, undisturbed):
    job = next(names)

    def dies():
        yield from CORPUS[:250]
        raise OSError("the disk with the corpus is gone")

    with Client(demo_server.target) as client, pytest.raises(OSError, match="is gone"):
        client.corpus_mean(dies(), job=job)
    with Client(demo_server.target) as client:
        opened = []
        record = client.corpus_mean(CORPUS, job=job, on_progress=opened.append)
        assert opened[0].committed > 0
        assert_same_mean(client, record, undisturbed)


def test_progress_never_goes_back(client):
    seen = []
    client.corpus_mean(CORPUS, job=next(names), on_progress=seen.append)
    assert [one.committed for one in seen] == sorted(one.committed for one in seen)
    assert seen[-1].committed == seen[-1].documents == len(CORPUS)


def test_finished_job_answers_again(client):
    job = next(names)
    assert client.corpus_mean(CORPUS[:5], job=job) == client.corpus_mean(CORPUS[:5], job=job)


def test_a_finished_job_takes_no_more_documents(client):
    job = next(names)
    client.corpus_mean(CORPUS[:5], job=job)
    with pytest.raises(FailedPrecondition, match=r"finished, with 5 documents.*another job name"):
        client.corpus_mean(CORPUS[:6], job=job)


def test_job_refuses_another_corpus(client):
    job = next(names)

    def broken(documents):
        yield from documents
        raise KeyError

    with pytest.raises(KeyError):
        client.corpus_mean(broken(CORPUS[:50]), job=job)
    with pytest.raises(CorpusChanged, match="they are not the first 50 of this corpus"):
        client.corpus_mean(CORPUS[1:], job=job)
    with pytest.raises(CorpusChanged, match="has only 20"):
        client.corpus_mean(CORPUS[:20], job=job)
    assert client.corpus_mean(CORPUS, job=job).documents == len(CORPUS)


def test_job_refuses_other_settings(client):
    job = next(names)
    client.corpus_mean(CORPUS[:5], job=job)
    for other, difference in (
        (
            {"truncation": "start"},
            'truncation was "TRUNCATION_ERROR" and is "TRUNCATION_KEEP_START"',
        ),
        ({"prepend_bos": False}, "prependBos was true and is not set"),
        ({"variance": True}, "hasVariance was not set and is true"),
    ):
        with pytest.raises(FailedPrecondition) as refused:
            client.corpus_mean(CORPUS[:5], job=job, **other)
        assert f"begun with other settings: {difference}. Use those" in str(refused.value)


def test_unreadable_documents_are_counted_in_order(client):
    documents = [
        "a text",
        Failure("line 2", "INVALID_ARGUMENT", "not JSON"),
        Document("half", "\ud800"),
        Document("blank", " "),
        Failure("line 5", "DATA_LOSS", "the file is cut"),
        Document("huge", "x" * (client.info().limits.max_text_bytes + 1)),
        "another text",
    ]
    record = client.corpus_mean(documents, job=next(names))
    assert record.documents == 2
    skipped = {
        one.reason: (one.documents, one.first_id, one.first_message) for one in record.skipped
    }
    assert skipped["INVALID_ARGUMENT"] == (3, "line 2", "not JSON")
    assert skipped["DATA_LOSS"] == (1, "line 5", "the file is cut")
    assert skipped["RESOURCE_EXHAUSTED"][:2] == (1, "huge")
    assert record.skipped_documents == 5


def test_corpus_without_a_good_document_has_no_mean(client):
    documents = [Failure("line 1", "DATA_LOSS", "the file is cut"), Document("blank", " ")]
    reason = "nothing to average; 2 skipped, the first, 'line 1', because the file is cut"
    with pytest.raises(FailedPrecondition, match=reason):
        client.corpus_mean(documents, job=next(names))


def test_second_client_of_a_job_is_refused(demo_server):
    job = next(names)
    opened, done = threading.Event(), threading.Event()

    def slow():
        yield from CORPUS[:10]
        done.wait(60)

    with Client(demo_server.target) as first, Client(demo_server.target) as second:
        thread = threading.Thread(
            target=first.corpus_mean,
            args=(slow(),),
            kwargs={"job": job, "on_progress": lambda _: opened.set()},
        )
        thread.start()
        assert opened.wait(60)
        with pytest.raises(Aborted, match=r"another client holds.*may take it over"):
            second.corpus_mean(CORPUS[:10], job=job)
        done.set()
        thread.join()
        assert second.get_mean(job).documents == 10


def test_callback_cannot_call_its_client(client):
    """It runs in the thread that would have to make the call, and would wait forever."""
    with pytest.raises(FailedPrecondition, match="call in another thread, or with another client"):
        client.corpus_mean(CORPUS[:10], job=next(names), on_progress=lambda _: client.info())
    assert client.info().model == "demo"


@pytest.mark.parametrize("name", ["", "a/b", "..", "latest", "x" * 65, "ä"])
def test_name_with_a_path_is_refused(client, name):
    with pytest.raises(InvalidArgument, match=r"job|name"):
        client.corpus_mean(CORPUS[:1], job=name or " ")


async def test_closing_the_client_ends_its_job(demo_server):
    client = AsyncClient(demo_server.target)
    opened = asyncio.Event()

    async def endless():
        while True:
            yield "a text"

    running = asyncio.create_task(
        client.corpus_mean(endless(), job=next(names), on_progress=lambda _: opened.set())
    )
    await opened.wait()
    await client.close()
    with pytest.raises(ClientClosed):
        await running


async def test_the_asynchronous_client_has_the_same_verbs(demo_server, undisturbed):
    job = next(names)
    async with AsyncClient(demo_server.target) as client:
        one = await client.corpus_mean(CORPUS[:150], job=job)
        other = await client.corpus_mean(CORPUS[150:], job=f"{job}-b")
        merged = await client.merge_means([one.id, other.id], name=f"{job}-merged")
        assert merged.documents == len(CORPUS)
        file = await client.download_mean(merged.id)
        assert_allclose(file.mean.T, undisturbed[1]["corpus_mean"], rtol=1e-6, atol=1e-6)
        assert await client.get_mean(f"{job}-merged") == merged
        assert await client.delete_mean(merged.id) == merged
        with pytest.raises(NotFound, match="no corpus mean"):
            await client.get_mean(merged.id)
        assert await client.upload_mean(file.content, name=f"{job}-back")
        assert (await client.list_means())[0].name == f"{job}-back"


def test_foreign_mean_can_be_uploaded_and_used(client):
    from safetensors.numpy import save  # noqa: PLC0415 - only here

    width = client.info().d_model
    mean = np.random.default_rng(0).normal(size=(width, 50)).astype(np.float32)
    record = client.upload_mean(save({"corpus_mean": mean}), name="elsewhere")
    assert (record.model, record.has_counts, record.max_tokens) == (None, False, 50)
    raw = client.extract("Some text of no great length.", mode="short")
    centered = client.extract("Some text of no great length.", mode="short", center="elsewhere")
    assert_allclose(
        raw.values - centered.values, pooled_mean("short", mean.T, raw.tokens), atol=1e-5
    )
    assert centered.smallest_count == 0


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e39])
def test_mean_that_is_not_finite_is_refused(number):
    states = np.ones((4, 6))
    assert read_mean(save({"corpus_mean": states})).shape == (6, 4)
    states[2, 3] = states[1, 5] = number
    with pytest.raises(InvalidArgument, match="not finite at distance 3 from the end"):
        read_mean(save({"corpus_mean": states}))
