"""Streams over several workers: spread, gone on with when one dies, ended where they differ."""

import asyncio

import pytest

from actvec.client import (
    Client,
    ServerUnavailable,
    StampChanged,
    TlsFiles,
)

from ...modal_stand_ins import LocalDeployment
from .streams import TEXTS, TOKEN, same, vectors


async def test_a_stream_is_spread_over_as_many_workers_as_are_asked_for(deploy, client_of):
    deployment = deploy()
    drawn = 0

    def all_work():
        return [worker.proxy.bytes_back > 20_000 for worker in deployment.workers] == 3 * [True]

    async def until_all_work():
        nonlocal drawn
        while not all_work():
            yield TEXTS[drawn % len(TEXTS)]
            drawn += 1
            await asyncio.sleep(0.005)

    async with client_of(deployment, workers=3) as client:
        results = client.stream(until_all_work(), mode="short")
        indices = [result.index async for result in results]
    assert sorted(indices) == list(range(drawn))
    assert deployment.starts == 3


async def test_a_stream_is_spread_over_the_workers_that_are_there(deploy, client_of, expected):
    deployment = deploy()
    for _ in range(2):
        deployment.add()
    async with client_of(deployment) as client:
        assert same(await vectors(client, ordered=True), expected)
    assert deployment.starts == 0
    assert all(worker.proxy.bytes_back > 20_000 for worker in deployment.workers)


async def test_a_worker_that_dies_leaves_its_documents_to_the_others(deploy, client_of, expected):
    deployment = deploy()
    for _ in range(3):
        deployment.add()
    async with client_of(deployment) as client:
        found = await vectors(client, after_first=deployment.workers[1].die)
    assert same(found, expected)
    assert deployment.starts == 0


async def test_the_only_worker_dies_and_another_is_started(deploy, client_of, expected):
    deployment = deploy()
    first = deployment.add()
    async with client_of(deployment) as client:
        assert same(await vectors(client, after_first=first.die), expected)
        # Calls that need one server follow it there.
        await client.info()
    assert deployment.starts == 1


async def test_a_worker_that_was_asked_for_is_replaced_when_it_dies(deploy, client_of, expected):
    deployment = deploy()
    for _ in range(2):
        deployment.add()
    async with client_of(deployment, workers=2) as client:
        found = await vectors(client, after_first=deployment.workers[0].die)
    assert same(found, expected)


async def test_a_replacement_that_does_not_come_leaves_the_work_to_those_that_are_there(
    deploy, client_of, expected, caplog
):
    deployment = deploy(fails="no GPU is to be had")
    for _ in range(2):
        deployment.add()
    async with client_of(deployment, workers=2) as client:
        found = await vectors(client, after_first=deployment.workers[0].die, window=8)
    assert same(found, expected)
    assert "going on with 1 servers" in caplog.text
    assert "no GPU is to be had" in caplog.text


async def test_documents_of_a_dead_worker_do_not_wait_for_its_replacement_nor_for_new_ones(
    deploy, client_of
):
    deployment = deploy(wakes_after=None)
    dying, _ = deployment.add(), deployment.add()
    answered = asyncio.Event()

    async def once_those_before_are_answered():
        # One by one, so that both have some of them.
        for text in TEXTS[:60]:
            yield text
            await asyncio.sleep(0.02)
        dying.proxy.stall(30)
        for text in TEXTS[60:80]:
            yield text
            await asyncio.sleep(0.02)
        dying.die()
        await answered.wait()
        yield TEXTS[80]

    found = []
    async with client_of(deployment, workers=2) as client:
        async for result in client.stream(once_those_before_are_answered(), mode="short"):
            found.append(result.index)
            if len(found) == 80:
                answered.set()
    assert sorted(found) == list(range(81))


async def test_all_workers_gone_for_good_is_an_error_and_not_a_short_stream(deploy, client_of):
    deployment = deploy(fails="no GPU is to be had")
    for _ in range(2):
        deployment.add()

    def die():
        for worker in deployment.workers:
            worker.die()

    async with client_of(deployment) as client:
        with pytest.raises(ServerUnavailable, match="no GPU is to be had"):
            await vectors(client, after_first=die, window=8)


async def test_a_worker_that_makes_other_vectors_ends_the_stream(
    servers, start_server, authority, client_of
):
    issued = authority.issue("other-layers", "127.0.0.1")
    options = (f"--tls-cert={issued.cert}", f"--tls-key={issued.key}", "--layers=0,1,2")
    other = start_server(*options, env={"ACTVEC_TOKEN": TOKEN}).target
    deployment = LocalDeployment(servers[0], other)
    for _ in range(2):
        deployment.add()
    async with client_of(deployment) as client:
        with pytest.raises(StampChanged, match="another server"):
            await vectors(client)
    deployment.close()


def test_a_program_without_an_event_loop_uses_workers_too(servers, authority, expected):
    deployment = LocalDeployment(*servers)
    settings = {"token": TOKEN, "tls": TlsFiles(ca=authority.pem), "workers": 2}
    with Client(deployment, **settings) as client:
        found = {one.index: one.values for one in client.stream(TEXTS, mode="short")}
    assert same(found, expected)
    deployment.close()
