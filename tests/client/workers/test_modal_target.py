"""`modal://`: how a target names an app on Modal, and the errors if it cannot be used."""

import asyncio
import sys
from types import SimpleNamespace

import modal
import pytest

from actvec.client import (
    AsyncClient,
    FailedPrecondition,
    InvalidTarget,
    MissingExtra,
    NotFound,
    ServerUnavailable,
    Waking,
    WorkerNotAwake,
)
from actvec.client.workers import fleet
from actvec.client.workers import modal as workers_on_modal
from actvec.client.workers.modal import ModalDeployment
from tests.modal.stand_ins import proxy_without_a_server

TOKEN = "of-the-secret"  # noqa: S105 - of the tests


@pytest.fixture
def actvec(program, monkeypatch):
    """The program, without any variables of the environment."""
    for name in ("ACTVEC_TARGET", "ACTVEC_TOKEN", "ACTVEC_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    return program


@pytest.mark.parametrize("target", ["modal://actvec", "modal://actvec-70m/main", " modal://a.b/ "])
def test_target_names_an_app(target):
    assert str(ModalDeployment.parse(target)) == target.strip().rstrip("/")


@pytest.mark.parametrize("target", ["modal://", "modal:///main", "modal://a/b/c", "modal://a b"])
def test_malformed_target_is_refused(target):
    with pytest.raises(InvalidTarget, match="for example modal://actvec"):
        AsyncClient(target, token=TOKEN)


class FakeModal:
    """Apps on Modal, by their tags, and the dicts that exist."""

    def __init__(self, monkeypatch, **apps):
        self.apps = apps
        self.dicts = {}
        self.asked = []
        monkeypatch.setattr(modal.App, "lookup", SimpleNamespace(aio=self._lookup))
        monkeypatch.setattr(modal.Dict, "from_name", self._from_name)

    async def _lookup(self, name, *, environment_name=None):
        self.asked.append((name, environment_name))
        if name not in self.apps:
            raise modal.exception.NotFoundError(f"App {name!r} not found")

        async def get_tags():
            return self.apps[name]

        return SimpleNamespace(get_tags=SimpleNamespace(aio=get_tags))

    def _from_name(self, name, *, environment_name, create_if_missing):
        assert create_if_missing
        return FakeDict(self, (name, environment_name))


class FakeDict:
    """A `modal.Dict`, created by its first use."""

    def __init__(self, made, name):
        self._entries = lambda: made.dicts.setdefault(name, {})
        self.items, self.put, self.pop = (
            SimpleNamespace(aio=method) for method in (self._items, self._put, self._pop)
        )

    async def _items(self):
        for item in list(self._entries().items()):
            yield item

    async def _put(self, key, value, *, skip_if_exists):
        if skip_if_exists and key in self._entries():
            return False
        self._entries()[key] = value
        return True

    async def _pop(self, key, default):
        return self._entries().pop(key, default)


async def test_directory_of_a_new_app_is_made(monkeypatch):
    there = FakeModal(monkeypatch, actvec={"actvec-deployment": "d1"})
    assert await ModalDeployment.parse("modal://actvec/main").entries() == {}
    assert there.asked == [("actvec", "main")]
    assert there.dicts == {("actvec-workers", "main"): {}}


async def test_mistyped_app_leaves_no_dict_behind(monkeypatch):
    there = FakeModal(monkeypatch, other={}, actvec={"actvec-deployment": "d1"})
    with pytest.raises(NotFound, match="modal://actvecc is not deployed"):
        await ModalDeployment.parse("modal://actvecc").entries()
    with pytest.raises(FailedPrecondition, match="not deployed by this version of actvec"):
        await ModalDeployment.parse("modal://other").entries()
    assert there.dicts == {}


async def test_entries_of_another_deployment_are_not_seen(monkeypatch):
    """They may have another model, or an obsolete token."""
    there = FakeModal(monkeypatch, actvec={"actvec-deployment": "d1"})
    client = ModalDeployment.parse("modal://actvec")
    await client.entries()
    assert await client.put("ta-1", b"old", skip_if_exists=True)
    there.apps["actvec"] = {"actvec-deployment": "d2"}
    there.dicts["actvec-workers", None] |= {3: "of a stranger", "notes": "of a stranger"}
    assert await client.entries() == {}
    assert await client.put("ta-1", b"new", skip_if_exists=True)
    assert await client.entries() == {"ta-1": b"new"}
    await client.pop("ta-1")
    assert there.dicts["actvec-workers", None].keys() == {"d1/ta-1", 3, "notes"}


async def test_wait_for_modal_ends_in_time(monkeypatch):
    """Modal's own client tries for minutes."""

    async def never(*_, **__):
        await asyncio.Event().wait()

    FakeModal(monkeypatch)
    monkeypatch.setattr(modal.App, "lookup", SimpleNamespace(aio=never))
    monkeypatch.setattr(fleet, "_ONE_LOOK", 0.1)
    waking = Waking(0.2, every=0.05)
    async with AsyncClient("modal://actvec", token=TOKEN, waking=waking) as client:
        with pytest.raises(WorkerNotAwake, match="its directory does not answer"):
            await asyncio.wait_for(client.info(), 30)
    monkeypatch.setattr(workers_on_modal, "_ANSWERS", 0.05)
    monkeypatch.setattr(fleet, "_ONE_LOOK", 60)
    async with AsyncClient("modal://actvec", token=TOKEN, waking=Waking(0)) as client:
        with pytest.raises(ServerUnavailable, match=r"Modal does not answer about modal://actvec"):
            await asyncio.wait_for(client.info(), 30)


class FakeCall:
    """A `modal.FunctionCall` whose `get` raises."""

    object_id = "fc-1"

    def __init__(self, error):
        self.get = self
        self._error = error

    async def aio(self, **_):
        raise self._error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        pytest.param(TimeoutError(), None, id="it runs"),
        pytest.param(modal.exception.ServiceError("away"), None, id="Modal is away"),
        pytest.param(modal.exception.InternalError("away"), None, id="Modal has a fault"),
        pytest.param(modal.exception.ConnectionError("away"), None, id="the network is away"),
        pytest.param(
            modal.exception.FunctionTimeoutError("too long"),
            "FunctionTimeoutError: too long (modal container logs, call fc-1)",
            id="it ended",
        ),
    ],
)
async def test_worker_is_given_up_when_its_call_ends(monkeypatch, error, says):
    monkeypatch.setattr(modal.Cls, "from_name", lambda *_, **__: FakeExtractor(error))
    starting = await ModalDeployment.parse("modal://actvec").start("of-this-client")
    assert await starting.error() == says


class FakeExtractor:
    """The class of an app, whose `serve` is a call that ends with an error."""

    def __init__(self, error):
        self.serve = self.spawn = self
        self._error = error

    def __call__(self):
        return self

    async def aio(self, *, start_id, deployed, deployed_as):
        assert (start_id, deployed, deployed_as) == ("of-this-client", "", "actvec")
        return FakeCall(self._error)


def test_without_modal_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "modal", None)
    with pytest.raises(MissingExtra, match=r"pip install 'actvec\[modal\]'"):
        AsyncClient("modal://actvec", token=TOKEN)


def test_the_program_says_what_is_missing(actvec):
    code, _, errors = actvec("info", "--target", "modal://actvec")
    assert (code, errors) == (
        2,
        "Error: the workers of modal://actvec need a token: give the one of the secret actvec-token"
        " (--token / ACTVEC_TOKEN)\n",
    )


def test_workers_are_those_of_an_app(actvec):
    code, _, errors = actvec("info", "--target", "127.0.0.1:1", "--workers", "2")
    assert code == 2
    assert "127.0.0.1:1 is one server; workers need a deployment" in errors


@pytest.fixture
async def asleep():
    async with proxy_without_a_server() as port:
        yield port


async def test_sleeping_server_is_awaited(asleep):
    asked = asyncio.Queue()
    waking = Waking(60, lambda *wait: asked.put_nowait(wait), every=0.01)
    async with AsyncClient(f"127.0.0.1:{asleep}", waking=waking) as client:
        calling = asyncio.create_task(client.info())
        waits = [await asked.get() for _ in range(3)]
        calling.cancel()
    assert waits == sorted(waits)
    assert waits[0][1] == f"127.0.0.1:{asleep} is asleep; asked it to wake up"


async def test_sleeping_server_is_given_up():
    """After the time that passed: a proxy may hold each call for long before it answers."""
    waits = []
    waking = Waking(0.12, lambda seconds, _: waits.append(seconds), every=0.01)
    async with (
        proxy_without_a_server(delay=0.05) as port,
        AsyncClient(f"127.0.0.1:{port}", waking=waking) as client,
    ):
        with pytest.raises(ServerUnavailable, match="503"):
            await client.info()
    assert len(waits) <= 2
    assert all(0.05 <= seconds < 0.12 for seconds in waits)
