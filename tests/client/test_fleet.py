"""Workers that are found by name: started when there is none, shared, spread over, replaced."""

import asyncio
import contextlib

import numpy as np
import pytest

from actvec.client import (
    AsyncClient,
    Client,
    ClientClosed,
    InvalidArgument,
    ServerUnavailable,
    StampChanged,
    TlsFiles,
    Unauthenticated,
    Waking,
    WorkerNotAwake,
)
from actvec.v1.worker_pb2 import Worker

from ..modal_stand_ins import LocalDeployment, proxy_without_a_server, tls_context

TOKEN = "of-the-secret"  # noqa: S105 - of the tests
TEXTS = [f"In {year} the bridge was closed for repairs." for year in range(1700, 1940)]


@pytest.fixture(scope="module")
def servers(start_server, authority):
    """Two servers of the demo model, with TLS and the token."""
    issued = authority.issue("workers", "127.0.0.1")
    options = (f"--tls-cert={issued.cert}", f"--tls-key={issued.key}")
    # Little at a time, so that a stream is in the middle when its worker dies.
    options += ("--stream-documents=8",)
    return [start_server(*options, env={"ACTVEC_TOKEN": TOKEN}).target for _ in range(2)]


@pytest.fixture(scope="module")
def expected(servers, authority):
    """The vectors of an undisturbed stream to one server."""
    with Client(f"https://{servers[0]}", token=TOKEN, tls=TlsFiles(ca=authority.pem)) as client:
        return {one.index: one.values for one in client.stream(TEXTS, mode="short")}


@pytest.fixture
def deploy(servers):
    """Deployments of the two servers."""
    made = []

    def deploy(**options):
        made.append(LocalDeployment(*servers, **options))
        return made[-1]

    yield deploy
    for deployment in made:
        deployment.close()


@pytest.fixture
def client_of(authority):
    def client_of(deployment, *, token=TOKEN, wake_for=30, on_wait=None, **settings):
        return AsyncClient(
            deployment,
            token=token,
            tls=TlsFiles(ca=authority.pem),
            waking=Waking(wake_for, on_wait, every=0.05),
            **settings,
        )

    return client_of


async def vectors(client, *, after_first=lambda: None, **options):
    """A stream's vectors by index, each once; something is done after the first."""
    found = {}
    async with contextlib.aclosing(client.stream(TEXTS, mode="short", **options)) as results:
        async for result in results:
            if not found:
                after_first()
            assert result.index not in found
            found[result.index] = result.values
    return found


def same(found, expected):
    return found.keys() == expected.keys() and all(
        np.array_equal(found[index], values) for index, values in expected.items()
    )


async def test_a_worker_that_serves_is_found_and_none_is_started(deploy, client_of):
    deployment = deploy()
    deployment.add()
    async with client_of(deployment) as client:
        assert (await client.info()).model == "demo"
        assert (await client.extract("A text.", mode="short")).values.shape == (256,)
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


def test_a_program_without_an_event_loop_uses_workers_too(servers, authority, expected):
    deployment = LocalDeployment(*servers)
    settings = {"token": TOKEN, "tls": TlsFiles(ca=authority.pem), "workers": 2}
    with Client(deployment, **settings) as client:
        found = {one.index: one.values for one in client.stream(TEXTS, mode="short")}
    assert same(found, expected)
    deployment.close()
