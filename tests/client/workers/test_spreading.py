"""Streams over several workers: they spread, survive a death, and end if workers differ."""

import asyncio

import pytest

from actvec.client import (
    Client,
    ServerUnavailable,
    StampChanged,
    TlsFiles,
)
from tests.client.workers.streams import TEXTS, TOKEN, same, texts_until, vectors
from tests.modal.stand_ins import LocalDeployment
from tests.waiting import eventually


def working(deployment):
    """How many workers have answered documents."""
    return sum(worker.proxy.bytes_back > 20_000 for worker in deployment.workers)


async def test_stream_spreads_over_requested_workers(deploy, client_of, expected):
    deployment = deploy()
    documents = texts_until(lambda: working(deployment) == 3)
    async with client_of(deployment, workers=3) as client:
        assert same(await vectors(client, documents=documents), expected)
    assert deployment.starts == 3


async def test_stream_spreads_over_running_workers(deploy, client_of, expected):
    deployment = deploy()
    for _ in range(2):
        deployment.add()
    documents = texts_until(lambda: working(deployment) == 2)
    async with client_of(deployment) as client:
        assert same(await vectors(client, documents=documents, ordered=True), expected)
    assert deployment.starts == 0


async def test_dead_worker_leaves_its_documents_to_others(deploy, client_of, expected):
    deployment = deploy()
    for _ in range(3):
        deployment.add()
    async with client_of(deployment) as client:
        found = await vectors(client, after_first=deployment.workers[1].die)
    assert same(found, expected)
    assert deployment.starts == 0


async def test_only_worker_dies_and_is_replaced(deploy, client_of, expected):
    deployment = deploy()
    first = deployment.add()
    async with client_of(deployment) as client:
        assert same(await vectors(client, after_first=first.die), expected)
        # Calls that need a single server follow the stream there.
        await client.info()
    assert deployment.starts == 1


async def test_dead_worker_is_replaced(deploy, client_of, expected):
    deployment = deploy()
    for _ in range(2):
        deployment.add()
    async with client_of(deployment, workers=2) as client:
        found = await vectors(client, after_first=deployment.workers[0].die)
    assert same(found, expected)


async def test_missing_replacement_leaves_work_to_others(deploy, client_of, expected, caplog):
    deployment = deploy(fails="no GPU is to be had")
    for _ in range(2):
        deployment.add()
    documents = texts_until(lambda: "continuing with 1 servers" in caplog.text)
    async with client_of(deployment, workers=2) as client:
        found = await vectors(
            client, documents=documents, after_first=deployment.workers[0].die, window=8
        )
    assert same(found, expected)
    assert "no GPU is to be had" in caplog.text


async def test_documents_of_a_dead_worker_do_not_wait(deploy, client_of):
    deployment = deploy(wakes_after=None)
    dying, _ = deployment.add(), deployment.add()
    found = []

    async def last_once_the_others_are_answered():
        drawn = 0

        async def one_by_one(condition):
            nonlocal drawn
            while not condition():
                yield TEXTS[0]
                drawn += 1
                await asyncio.sleep(0.005)

        async for text in one_by_one(lambda: working(deployment) == 2):
            yield text
        dying.proxy.hold_after(0)
        async for text in one_by_one(dying.proxy.held.is_set):
            yield text
        dying.die()
        await eventually(lambda: len(found) == drawn)
        yield TEXTS[0]

    async with client_of(deployment, workers=2) as client:
        async for result in client.stream(last_once_the_others_are_answered(), mode="short"):
            found.append(result.index)  # noqa: PERF401 - the documents wait for these
    assert sorted(found) == list(range(len(found)))


async def test_loss_of_all_workers_is_an_error(deploy, client_of):
    deployment = deploy(fails="no GPU is to be had")
    for _ in range(2):
        deployment.add()

    def die():
        for worker in deployment.workers:
            worker.die()

    async with client_of(deployment) as client:
        with pytest.raises(ServerUnavailable, match="no GPU is to be had"):
            await vectors(client, after_first=die, window=8)


async def test_worker_of_other_vectors_ends_the_stream(servers, start_server, authority, client_of):
    issued = authority.issue("other-layers", "127.0.0.1")
    options = (f"--tls-cert={issued.cert}", f"--tls-key={issued.key}", "--layers=0,1,2")
    other = start_server(*options, env={"ACTVEC_TOKEN": TOKEN}).target
    deployment = LocalDeployment(servers[0], other)
    for _ in range(2):
        deployment.add()
    async with client_of(deployment) as client:
        with pytest.raises(StampChanged, match="another one"):
            await vectors(client, documents=texts_until(lambda: False))
    deployment.close()


def test_sync_program_uses_workers_too(servers, authority, expected):
    deployment = LocalDeployment(*servers)
    settings = {"token": TOKEN, "tls": TlsFiles(ca=authority.pem), "workers": 2}
    with Client(deployment, **settings) as client:
        found = {one.index: one.values for one in client.stream(TEXTS, mode="short")}
    assert same(found, expected)
    deployment.close()
