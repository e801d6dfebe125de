"""A client belongs to one process and one event loop, and refuses to work where it would hang."""

import asyncio
import multiprocessing
import os
import pickle
import subprocess
import sys
import types
from collections.abc import Callable

import pytest
from torch.utils.data import DataLoader, Dataset

from actvec.client import AsyncClient, Client, ClientClosed, FailedPrecondition
from actvec.client.transport.runtime import check_runtime

# A child ends at once, or hangs forever.
SECONDS = 60

FORK = multiprocessing.get_context("fork")


def in_fork(work: Callable[[], object]) -> str:
    """The result of `work` in a forked process, or its error, as text."""
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
    except Exception as error:  # the parent gets any error
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


# Forks, and prints the errors of a new client in the child; each test adds the code before.
FORKING = """
import gc, os, sys
from actvec.client import ActvecError, Client

gc.disable()
target = sys.argv[1]

def fork(work=lambda: Client(target).info().model):
    child = os.fork()
    if not child:
        try:
            print(work())
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

STREAMING = """
client = Client(target)
results = client.stream((f"Text {n}." for n in range(20)), mode="short", window=2)
next(results)
fork(lambda: list(results))
print(len(list(results)))
"""

UNUSED = """
client = Client(target)
fork(lambda: client.info().model)
fork()
print(client.info().model)
"""


def forked(program: str, *arguments: str, **environment: str) -> list[str]:
    """The output of a program that starts afresh, without the state of gRPC that earlier tests
    left.
    """
    done = subprocess.run(
        [sys.executable, "-c", FORKING + program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
        env=os.environ | environment,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("program", "expected"),
    [(CLOSED, ["demo", "demo"]), (DROPPED, ["demo"]), (FAILED, ["demo"])],
    ids=["closed", "dropped", "failed"],
)
def test_closed_client_leaves_forks_free(demo_server, program, expected):
    assert forked(program, demo_server.target) == expected


def test_inherited_stream_refuses_further_results(demo_server):
    # While messages travel, gRPC's own handlers of a fork may crash the child before it can refuse.
    settings = {"GRPC_ENABLE_FORK_SUPPORT": "0"}
    refusal, rest = forked(STREAMING, demo_server.target, **settings)
    assert_refused(f"FailedPrecondition: {refusal}")
    assert rest == "19"


def test_kept_error_refuses_forks(demo_server):
    """It keeps gRPC's threads, which the child would wait for."""
    (answer,) = forked(FAILED, demo_server.target, "keep")
    assert "An error of a call that is kept" in answer


def test_client_that_called_nobody_stays_behind(demo_server):
    inherited, new, own = forked(UNUSED, demo_server.target)
    assert "make another client in this process" in inherited
    assert new == own == "demo"


class Vectors(Dataset):
    """A data set for a training loop: returns a text's vector on request."""

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


# Each as its library of green threads spells it.
PATCHERS = {
    "gevent.monkey": ("is_module_patched", "threading"),
    "eventlet.patcher": ("is_monkey_patched", "thread"),
}


@pytest.fixture(params=PATCHERS)
def patched(request, monkeypatch):
    """Loads a library that patched a part of Python, and gives its name.

    None is installed: this has their documented interfaces.
    """

    def load(part):
        asked, threads = PATCHERS[request.param]
        module = types.ModuleType(request.param)
        setattr(module, asked, lambda name: name == (threads if part == "threads" else part))
        monkeypatch.setitem(sys.modules, request.param, module)
        return request.param.partition(".")[0]

    return load


def test_patched_sockets_are_no_matter(patched):
    patched("socket")
    check_runtime()


@pytest.mark.parametrize("part", ["threads", "select"])
def test_green_threads_are_refused(patched, part):
    library = patched(part)
    for make in (Client, AsyncClient):
        with pytest.raises(FailedPrecondition, match=library):
            make()


def test_forks_say_nothing_by_themselves():
    """A program that forks without a client is not affected."""
    program = "import os, actvec.client; os.fork() or os._exit(0); print(os.wait()[1])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
