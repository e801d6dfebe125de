"""A client belongs to one process and to one event loop, and says so where it would hang."""

import asyncio
import multiprocessing
import pickle
import subprocess
import sys
import types
from collections.abc import Callable

import pytest
from torch.utils.data import DataLoader, Dataset

from actvec.client import AsyncClient, Client, ClientClosed, FailedPrecondition
from actvec.client.runtime import check_runtime

# What a child does is over at once, or hangs for ever.
SECONDS = 20

FORK = multiprocessing.get_context("fork")


def in_fork(work: Callable[[], object]) -> str:
    """What `work` comes to in a forked process: its result, or its error, as text."""
    answers = FORK.SimpleQueue()
    process = FORK.Process(target=_answer, args=(work, answers))
    process.start()
    process.join(SECONDS)
    hangs = process.is_alive()
    process.kill()
    process.join()
    assert not hangs, "the child hangs"
    assert process.exitcode == 0
    answer = answers.get()
    assert isinstance(answer, str)
    return answer


def _answer(work: Callable[[], object], answers: "multiprocessing.SimpleQueue[str]") -> None:
    try:
        answers.put(str(work()))
    except Exception as error:  # whatever it is, the parent is told
        answers.put(f"{type(error).__name__}: {error}")


def fresh(target: str) -> str:
    with Client(target) as client:
        return client.info().model


def use(client: AsyncClient) -> str:
    return asyncio.run(client.info()).model


REFUSAL = r"FailedPrecondition: .*forked while .*\"spawn\".*close every client before the fork"


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.info(),
        lambda client: client.extract("One text.", mode="short"),
        lambda client: list(client.stream(["One text."], mode="short")),
        lambda client: client.corpus_mean(["One text."], job="forked"),
        lambda client: client.list_means(),
        lambda client: client.download_mean("latest"),
        lambda client: client.upload_mean(b"", name="forked"),
    ],
)
def test_inherited_client_refuses_every_call(client, call):
    client.info()
    assert_refused(in_fork(lambda: call(client)))


def assert_refused(answer: str) -> None:
    with pytest.raises(FailedPrecondition, match=REFUSAL):
        raise FailedPrecondition(answer)


def test_inherited_client_closes_without_a_word(client):
    client.info()
    assert in_fork(client.close) == "None"
    assert client.info().model == "demo"


def test_inherited_stream_refuses_further_results(client):
    results = client.stream((f"Text {n}." for n in range(200)), mode="short", window=2)
    next(results)
    assert_refused(in_fork(lambda: list(results)))
    assert len(list(results)) == 199


def test_new_client_is_refused_after_the_fork(client, demo_server):
    client.info()
    assert_refused(in_fork(lambda: fresh(demo_server.target)))
    assert_refused(in_fork(lambda: AsyncClient(demo_server.target)))


def test_fork_of_a_fork_is_refused(client, demo_server):
    client.info()
    assert_refused(in_fork(lambda: in_fork(lambda: fresh(demo_server.target))))


async def test_inherited_async_client_refuses(demo_server):
    async with AsyncClient(demo_server.target) as client:
        await client.info()
        assert_refused(in_fork(lambda: use(client)))
        assert in_fork(lambda: asyncio.run(client.close())) == "None"


# Forks, and prints what a new client of the child hears; everything before it is a test's own.
FORKING = """
import gc, os, sys
from actvec.client import ActvecError, Client

gc.disable()
target = sys.argv[1]

def fork(client=None):
    child = os.fork()
    if not child:
        try:
            print((client or Client(target)).info().model)
        except ActvecError as error:
            print(error)
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""

CLOSED = """
client = Client(target)
client.info()
client.close()
fork()
print(Client(target).info().model)
"""

DROPPED = """
client = Client(target)
client.info()
del client
fork()
"""

FAILED = """
with Client(target) as client:
    try:
        client.extract("", mode="short")
    except ActvecError as error:
        kept = error if "keep" in sys.argv else None
fork()
"""

UNUSED = """
client = Client(target)
fork(client)
fork()
print(client.info().model)
"""


def forked(program: str, *arguments: str) -> list[str]:
    """What a program prints that starts afresh, with nothing of gRPC that earlier tests kept."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING + program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("program", "expected"),
    [(CLOSED, ["demo", "demo"]), (DROPPED, ["demo"]), (FAILED, ["demo"])],
    ids=["closed", "dropped", "failed"],
)
def test_closed_client_leaves_forks_free(demo_server, program, expected):
    assert forked(program, demo_server.target) == expected


def test_kept_error_refuses_forks(demo_server):
    """It keeps gRPC's threads, which the child would wait for."""
    (answer,) = forked(FAILED, demo_server.target, "keep")
    assert "An error of a call that is kept" in answer


def test_client_that_called_nobody_stays_behind(demo_server):
    inherited, new, own = forked(UNUSED, demo_server.target)
    assert "make another client in this process" in inherited
    assert new == own == "demo"


class Vectors(Dataset):
    """What a training loop may be fed with: a text's vector when it is asked for."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> object:
        return self._client.extract(f"Text {index}.", mode="short").values


def test_data_loader_workers_refuse(client):
    loader = DataLoader(
        Vectors(client), num_workers=1, multiprocessing_context="fork", timeout=SECONDS
    )
    client.info()
    with pytest.raises(FailedPrecondition, match="forked while"):
        list(loader)


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_client_is_not_pickled(make):
    with pytest.raises(TypeError, match="send its address"):
        pickle.dumps(make())


def test_second_event_loop_is_refused(demo_server):
    client = AsyncClient(demo_server.target)
    assert use(client) == "demo"
    calls = [
        client.info,
        lambda: client.extract("One text.", mode="short"),
        lambda: client.corpus_mean(["One text."], job="second"),
        lambda: anext(client.stream(["One text."], mode="short")),
    ]
    for call in calls:
        with pytest.raises(FailedPrecondition, match="event loop of its first call"):
            asyncio.run(awaited(call))
    asyncio.run(client.close())
    with pytest.raises(ClientClosed):
        use(client)


async def awaited(call):
    return await call()


def test_stream_refuses_a_second_event_loop(demo_server):
    client = AsyncClient(demo_server.target)
    results = client.stream(["One.", "Two."], mode="short", window=1)
    asyncio.run(awaited(results.__anext__))
    with pytest.raises(FailedPrecondition, match="event loop of its first call"):
        asyncio.run(awaited(results.__anext__))
    asyncio.run(results.aclose())


async def test_close_in_another_running_loop_is_refused(demo_server):
    async with AsyncClient(demo_server.target) as client:
        await client.info()
        with pytest.raises(FailedPrecondition, match="event loop of its first call"):
            await asyncio.to_thread(asyncio.run, client.close())
        assert (await client.info()).model == "demo"


# Each as the library of green threads spells it.
PATCHERS = {
    "gevent.monkey": ("is_module_patched", "threading"),
    "eventlet.patcher": ("is_monkey_patched", "thread"),
}


@pytest.mark.parametrize("patcher", PATCHERS)
@pytest.mark.parametrize("part", ["threads", "select", "socket"])
def test_green_threads_are_refused(monkeypatch, patcher, part):
    """Neither library is here; what is asked of them is what their documentation promises."""
    asked, threads = PATCHERS[patcher]
    patched = threads if part == "threads" else part
    module = types.ModuleType(patcher)
    setattr(module, asked, lambda name: name == patched)
    monkeypatch.setitem(sys.modules, patcher, module)
    if part == "socket":
        check_runtime()
        return
    for make in (Client, AsyncClient):
        with pytest.raises(FailedPrecondition, match=patcher.partition(".")[0]):
            make()


def test_forks_say_nothing_by_themselves():
    """A program that forks and has no client is not concerned."""
    program = "import os, actvec.client; os.fork() or os._exit(0); print(os.wait()[1])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
