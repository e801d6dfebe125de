"""Workers that are found by name: started when there is none, shared, swept up."""

import asyncio
import contextlib

import pytest

from actvec.client import (
    AsyncClient,
    ClientClosed,
    InvalidArgument,
    ServerUnavailable,
    Unauthenticated,
    WorkerNotAwake,
)
from actvec.server.demo import WIDTH
from actvec.v1.worker_pb2 import Worker

from ...modal_stand_ins import proxy_without_a_server, tls_context
from .streams import TOKEN, same, vectors


async def test_a_worker_that_serves_is_found_and_none_is_started(deploy, client_of):
    deployment = deploy()
    deployment.add()
    async with client_of(deployment) as client:
        assert (await client.info()).model == "demo"
        assert (await client.extract("A text.", mode="short")).values.shape == (WIDTH,)
    assert deployment.starts == 0


async def test_one_is_started_where_none_serves_and_waited_for(deploy, client_of, expected):
    deployment = deploy(wakes_after=0.2)
    waits = []
    async with client_of(deployment, on_wait=lambda *wait: waits.append(wait)) as client:
        assert same(await vectors(client), expected)
    assert deployment.starts == 1
    assert waits[0][0] < 1
    assert waits[0][1] == "starting a worker of modal://actvec"
    assert deployment.claims == []


async def test_a_clients_own_timeout_does_not_count_while_a_worker_wakes(deploy, client_of):
    async with client_of(deploy(wakes_after=1.5), timeout=1.0) as client:
        assert (await client.info()).model == "demo"


async def test_clients_that_come_together_start_one_worker_together(deploy, client_of):
    deployment = deploy(wakes_after=0.5)
    told = set()
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                client_of(deployment, on_wait=lambda _, what: told.add(what))
            )
            for _ in range(5)
        ]
        await asyncio.gather(*(client.info() for client in clients))
    assert deployment.starts == 1
    assert "waiting for a worker of modal://actvec that another client starts" in told


@pytest.mark.parametrize("apart", [0.02, 0.05])
async def test_a_directory_that_is_far_away_makes_no_more_workers(deploy, client_of, apart):
    deployment = deploy(wakes_after=0.5, takes=0.06)

    async def come(number):
        await asyncio.sleep(number * apart)
        async with client_of(deployment) as client:
            await client.info()

    await asyncio.gather(*map(come, range(4)))
    assert deployment.starts == 1


async def test_a_worker_that_nobody_waits_for_any_more_is_not_started(deploy, client_of):
    deployment = deploy(wakes_after=None)
    async with client_of(deployment, wake_for=0.2) as client:
        with pytest.raises(WorkerNotAwake):
            await client.info()
    assert (deployment.starts, deployment.cancelled, deployment.claims) == (1, 1, [])


@pytest.mark.parametrize("status", [404, 500])
async def test_whatever_answers_for_a_worker_that_is_long_gone_it_is_swept_up(
    deploy, client_of, authority, status
):
    deployment = deploy()
    issued = authority.issue("another", "127.0.0.1")
    async with proxy_without_a_server(tls_context(issued), status) as port:
        deployment.add_elsewhere(port, age=3600)
        async with client_of(deployment) as client:
            await client.info()
    assert deployment.starts == 1
    assert "ta-elsewhere" not in deployment.directory


async def test_the_entry_of_a_worker_that_was_taken_away_is_swept_up(deploy, client_of):
    deployment = deploy()
    gone = deployment.add()
    gone.die()
    deployment.age(gone, 3600)
    async with client_of(deployment) as client:
        await client.info()
    assert deployment.starts == 1
    assert gone.entry.task_id not in deployment.directory


async def test_an_entry_that_was_renewed_lately_stays_though_its_worker_does_not_answer(
    deploy, client_of
):
    deployment = deploy()
    unreachable = deployment.add()
    unreachable.die()
    async with client_of(deployment) as client:
        await client.info()
    assert unreachable.entry.task_id in deployment.directory


async def test_a_worker_that_answers_is_there_whatever_this_machines_clock_says(deploy, client_of):
    deployment = deploy()
    deployment.age(deployment.add(), 3600)
    async with client_of(deployment) as client:
        await client.info()
    assert deployment.starts == 0
    assert len(deployment.directory) == 1


async def test_a_worker_whose_tunnel_leads_nowhere_is_gone_and_not_asleep(
    deploy, client_of, authority
):
    deployment = deploy()
    issued = authority.issue("nowhere", "127.0.0.1")
    async with proxy_without_a_server(tls_context(issued)) as port:
        deployment.add_elsewhere(port)
        async with client_of(deployment) as client:
            await client.info()
    assert deployment.starts == 1


async def test_a_directory_that_is_away_for_a_moment_is_asked_again(deploy, client_of, expected):
    deployment = deploy()
    first = deployment.add()

    def fail():
        first.die()
        deployment.away = 2

    waits = []
    async with client_of(deployment, on_wait=lambda _, what: waits.append(what)) as client:
        assert same(await vectors(client, after_first=fail), expected)
    assert waits[:2] == 2 * ["Modal does not answer"]


async def test_a_worker_that_was_found_is_used_though_its_claim_cannot_be_given_up(
    deploy, client_of
):
    """Claims that nobody renews are void after a minute."""
    deployment = deploy()
    deployment.away_at_pops = 1
    async with client_of(deployment) as client:
        assert (await client.info()).model == "demo"
    assert deployment.starts == 1
    assert len(deployment.claims) == 1


async def test_a_search_that_fails_says_why_and_cancels_its_worker_though_the_directory_is_away(
    deploy, client_of
):
    deployment = deploy(wakes_after=None)
    deployment.away_at_pops = 1000
    async with client_of(deployment, wake_for=0.2) as client:
        with pytest.raises(WorkerNotAwake, match="--wake-for"):
            await client.info()
    assert (deployment.starts, deployment.cancelled) == (1, 1)


async def test_a_worker_that_is_found_too_late_for_its_caller_is_free_for_the_next(
    deploy, client_of
):
    """A call that is cancelled while the claim is being given up."""
    deployment = deploy()
    giving_up = asyncio.Event()

    async def never(_key):
        giving_up.set()
        await asyncio.Event().wait()

    pop, deployment.pop = deployment.pop, never
    async with client_of(deployment, workers=2) as client:
        call = asyncio.create_task(client.info())
        await giving_up.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        deployment.pop = pop
        await client.info()
    assert deployment.starts == 1


async def test_a_directory_that_stays_away_is_an_error(deploy, client_of):
    deployment = deploy()
    deployment.away = 1000
    async with client_of(deployment, wake_for=0.1) as client:
        with pytest.raises(ServerUnavailable, match="Modal does not answer"):
            await client.info()


async def test_a_worker_that_fails_to_start_is_reported_with_its_own_words(deploy, client_of):
    deployment = deploy(fails="StartupError: --layers 99 is not there")
    async with client_of(deployment) as client:
        with pytest.raises(WorkerNotAwake, match="ended before it served: StartupError: --layers"):
            await client.info()
    assert deployment.claims == []


async def test_patience_ends_with_advice(deploy, client_of):
    deployment = deploy(wakes_after=None)
    async with client_of(deployment, wake_for=0.1) as client:
        with pytest.raises(WorkerNotAwake, match="--wake-for"):
            await client.info()
    assert deployment.claims == []


async def test_a_client_that_is_closed_waits_for_no_worker(deploy, client_of):
    deployment = deploy(wakes_after=None)
    client = client_of(deployment)
    calling = asyncio.create_task(client.info())
    streaming = asyncio.create_task(vectors(client))
    await deployment.directory.after(puts=1)
    await client.close()
    for waiting in (calling, streaming):
        with pytest.raises(ClientClosed):
            await waiting
    assert deployment.claims == []


async def test_the_claim_of_a_client_that_was_killed_keeps_nobody_waiting(deploy, client_of):
    killed, deployment = deploy(wakes_after=None), deploy()
    async with client_of(killed) as client:
        waiting = asyncio.create_task(client.info())
        await killed.directory.after(puts=1)
        (claim,) = killed.claims
        deployment.directory[claim] = killed.directory[claim]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    abandoned = Worker.FromString(deployment.directory[claim])
    abandoned.heartbeat_at.seconds -= 3600
    deployment.directory[claim] = abandoned.SerializeToString()
    async with client_of(deployment) as client:
        await client.info()
    assert deployment.starts == 1
    assert deployment.claims == []


async def test_a_wrong_token_is_said_at_once_and_starts_nothing(deploy, client_of):
    deployment = deploy()
    deployment.add()
    async with client_of(deployment, token="guessed") as client:
        with pytest.raises(Unauthenticated):
            await client.info()
    assert deployment.starts == 0


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        (None, {"token": None}, "secret actvec-token"),
        (None, {"token": TOKEN, "workers": 0}, "1 or more"),
        ("127.0.0.1:1", {"workers": 2}, "is one server"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_is_started(
    deploy, target, settings, message
):
    with pytest.raises(InvalidArgument, match=message):
        AsyncClient(target or deploy(), **settings)
