"""Workers found by name: started if there is none, shared, and removed once gone."""

import asyncio
import contextlib
import time

import pytest

from actvec.client import (
    AsyncClient,
    ClientClosed,
    InvalidArgument,
    ServerUnavailable,
    Unauthenticated,
    WorkerNotAwake,
)
from actvec.client.workers import directory
from actvec.server.model.demo import WIDTH
from actvec.v1.worker_pb2 import Worker
from tests.client.workers.streams import TOKEN, same, vectors
from tests.modal.stand_ins import proxy_without_a_server, tls_context


async def test_running_worker_is_found(deploy, client_of):
    deployment = deploy()
    deployment.add()
    async with client_of(deployment) as client:
        assert (await client.info()).model == "demo"
        assert (await client.extract("A text.", mode="short")).values.shape == (WIDTH,)
    assert deployment.starts == 0


async def test_missing_worker_is_started(deploy, client_of, expected):
    told = asyncio.Event()
    deployment = deploy(wakes_after=told)
    waits = []

    def on_wait(*wait):
        waits.append(wait)
        if len(waits) == 2:
            told.set()

    began = time.monotonic()
    async with client_of(deployment, on_wait=on_wait) as client:
        assert same(await vectors(client), expected)
    assert deployment.starts == 1
    assert 0 <= waits[0][0] < waits[1][0] < time.monotonic() - began
    assert waits[0][1] == "starting a worker of modal://actvec"
    assert deployment.claims == []


async def test_waking_does_not_count_as_timeout(deploy, client_of, clock):
    awake = asyncio.Event()
    deployment = deploy(wakes_after=awake)
    async with client_of(deployment, timeout=60, wake_for=1000) as client:
        call = asyncio.create_task(client.info())
        await deployment.directory.after(puts=1)
        clock.advance(100)
        awake.set()
        assert (await call).model == "demo"


async def test_parallel_clients_share_a_start(deploy, client_of):
    another = asyncio.Event()
    deployment = deploy(wakes_after=another)

    def on_wait(_, what):
        if what == "waiting for a worker of modal://actvec, which another client is starting":
            another.set()

    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(client_of(deployment, on_wait=on_wait))
            for _ in range(5)
        ]
        await asyncio.gather(*(client.info() for client in clients))
    assert deployment.starts == 1


@pytest.mark.parametrize("apart", [0.02, 0.05])
async def test_slow_directory_makes_no_more_workers(deploy, client_of, apart):
    deployment = deploy(wakes_after=0.5, takes=0.06)

    async def come(number):
        await asyncio.sleep(number * apart)
        async with client_of(deployment) as client:
            await client.info()

    await asyncio.gather(*map(come, range(4)))
    assert deployment.starts == 1


async def test_unneeded_worker_is_not_started(deploy, client_of):
    deployment = deploy(wakes_after=None)
    async with client_of(deployment, wake_for=0.2) as client:
        with pytest.raises(WorkerNotAwake):
            await client.info()
    assert (deployment.starts, deployment.cancelled, deployment.claims) == (1, 1, [])


@pytest.fixture
def brisk(monkeypatch):
    """Entries count as left behind after a moment without change."""
    monkeypatch.setattr(directory, "_WORKER_SILENT", 0.1)
    monkeypatch.setattr(directory, "_CLAIM_SILENT", 0.1)


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("status", [404, 500])
async def test_stale_worker_is_swept_up_whatever_answers(deploy, client_of, authority, status):
    swept_up = asyncio.Event()
    deployment = deploy(wakes_after=swept_up)
    deployment.directory.on_pop = lambda key: swept_up.set() if key == "ta-elsewhere" else None
    issued = authority.issue("another", "127.0.0.1")
    async with proxy_without_a_server(tls_context(issued), status) as port:
        deployment.add_elsewhere(port)
        async with client_of(deployment) as client:
            await client.info()
    assert deployment.starts == 1
    assert "ta-elsewhere" not in deployment.directory


@pytest.mark.usefixtures("brisk")
async def test_stale_entry_is_swept_up(deploy, client_of):
    swept_up = asyncio.Event()
    deployment = deploy(wakes_after=swept_up)
    gone = deployment.add()
    gone.die()
    deployment.directory.on_pop = lambda key: swept_up.set() if key == gone.entry.task_id else None
    async with client_of(deployment) as client:
        await client.info()
    assert deployment.starts == 1
    assert gone.entry.task_id not in deployment.directory


async def test_renewed_entry_stays_without_an_answer(deploy, client_of):
    deployment = deploy()
    unreachable = deployment.add()
    unreachable.die()
    async with client_of(deployment) as client:
        await client.info()
    assert unreachable.entry.task_id in deployment.directory


async def test_answer_counts_whatever_the_clock(deploy, client_of):
    deployment = deploy()
    deployment.age(deployment.add(), 3600)
    async with client_of(deployment) as client:
        await client.info()
    assert deployment.starts == 0
    assert len(deployment.directory) == 1


async def test_worker_with_a_dead_tunnel_is_gone(deploy, client_of, authority):
    deployment = deploy()
    issued = authority.issue("nowhere", "127.0.0.1")
    async with proxy_without_a_server(tls_context(issued)) as port:
        deployment.add_elsewhere(port)
        async with client_of(deployment) as client:
            await client.info()
    assert deployment.starts == 1


async def test_directory_that_fails_is_asked_again(deploy, client_of, expected):
    deployment = deploy()
    first = deployment.add()

    def fail():
        first.die()
        deployment.away = 2

    waits = []
    async with client_of(deployment, on_wait=lambda _, what: waits.append(what)) as client:
        assert same(await vectors(client, after_first=fail), expected)
    assert waits[:2] == 2 * ["Modal does not answer"]


async def test_found_worker_needs_no_released_claim(deploy, client_of):
    """Claims that nobody renews expire after a minute."""
    deployment = deploy()
    deployment.away_at_pops = 1
    async with client_of(deployment) as client:
        assert (await client.info()).model == "demo"
    assert deployment.starts == 1
    assert len(deployment.claims) == 1


async def test_failed_search_explains_and_cancels(deploy, client_of):
    deployment = deploy(wakes_after=None)
    deployment.away_at_pops = 1000
    async with client_of(deployment, wake_for=0.2) as client:
        with pytest.raises(WorkerNotAwake, match="allow more time"):
            await client.info()
    assert (deployment.starts, deployment.cancelled) == (1, 1)


async def test_late_worker_is_free_for_the_next_caller(deploy, client_of):
    """A call that is cancelled while the claim is being released."""
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


async def test_absent_directory_is_an_error(deploy, client_of):
    deployment = deploy()
    deployment.away = 1000
    async with client_of(deployment, wake_for=0.1) as client:
        with pytest.raises(ServerUnavailable, match="Modal does not answer"):
            await client.info()


async def test_failed_start_is_reported_in_its_words(deploy, client_of):
    deployment = deploy(fails="StartupError: --layers 99 is not there")
    async with client_of(deployment) as client:
        with pytest.raises(WorkerNotAwake, match="ended before it served: StartupError: --layers"):
            await client.info()
    assert deployment.claims == []


async def test_patience_ends_with_advice(deploy, client_of):
    deployment = deploy(wakes_after=None)
    async with client_of(deployment, wake_for=0.1) as client:
        with pytest.raises(WorkerNotAwake, match="allow more time"):
            await client.info()
    assert deployment.claims == []


async def test_closed_client_waits_for_no_worker(deploy, client_of):
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


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("ahead", [-3600, -120, 0, 120, 3600])
async def test_killed_clients_claim_delays_nobody(deploy, client_of, ahead):
    """However wrong that client's clock was: a claim is in force only while it changes."""
    deployment = deploy()
    claim = Worker(start_id="of-the-killed")
    claim.heartbeat_at.GetCurrentTime()
    claim.heartbeat_at.seconds += ahead
    deployment.directory["starting-0"] = claim.SerializeToString()
    async with client_of(deployment) as client:
        await client.info()
    assert deployment.starts == 1
    assert deployment.claims == []


@pytest.mark.parametrize("ahead", [-120, 120])
async def test_claim_that_is_renewed_is_waited_for(deploy, client_of, ahead, monkeypatch):
    silent = 0.2
    monkeypatch.setattr(directory, "_CLAIM_SILENT", silent)
    deployment = deploy()
    claim = Worker(start_id="of-the-other")
    entries, looks = deployment.entries, []

    async def renewed_entries():
        claim.heartbeat_at.GetCurrentTime()
        claim.heartbeat_at.seconds += ahead
        deployment.directory["starting-0"] = claim.SerializeToString()
        looks.append(time.monotonic())
        return await entries()

    deployment.entries = renewed_entries
    async with client_of(deployment) as client:
        waiting = asyncio.create_task(client.info())
        while not looks or looks[-1] < looks[0] + 2 * silent:
            assert not waiting.done()
            await asyncio.sleep(0.01)
        deployment.add("of-the-other")
        await waiting
    assert deployment.starts == 0


async def test_start_without_its_claim_is_cancelled(deploy, client_of):
    deployment = deploy(wakes_after=None)
    async with client_of(deployment) as client:
        waiting = asyncio.create_task(client.info())
        await deployment.directory.after(puts=1)
        theirs = Worker(start_id="of-another").SerializeToString()
        while not deployment.cancelled:
            deployment.directory["starting-0"] = theirs
            await asyncio.sleep(0.01)
        assert deployment.directory["starting-0"] == theirs
        deployment.add("of-another")
        await waiting
    assert deployment.starts == 1


async def test_late_workers_do_not_exceed_the_request(deploy, client_of, expected):
    deployment = deploy(wakes_after=[0.05, 0.6])
    async with client_of(deployment, workers=2) as client:
        assert same(await vectors(client), expected)
        await deployment.all_awake()
        assert same(await vectors(client), expected)
    assert deployment.starts == 2
    assert deployment.claims == []


async def test_entries_of_strangers_break_no_client(deploy, client_of):
    deployment = deploy()
    deployment.directory |= {"notes": b"\xff\xff", "starting-0": b"\x0a", "count": 3, "": b""}
    deployment.add()
    async with client_of(deployment) as client:
        await client.info()
    assert deployment.starts == 0


async def test_wrong_token_starts_nothing(deploy, client_of):
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
def test_contradictory_arguments_are_refused_first(deploy, target, settings, message):
    with pytest.raises(InvalidArgument, match=message):
        AsyncClient(target or deploy(), **settings)
