"""`modal://`: how a target names an app on Modal, and what is said where that cannot be used."""

import sys

import modal
import pytest

from actvec.client import AsyncClient, InvalidTarget, MissingExtra, ServerUnavailable, Waking
from actvec.client.on_modal import ModalDeployment

from ..modal_stand_ins import proxy_without_a_server

TOKEN = "of-the-secret"  # noqa: S105 - of the tests


@pytest.fixture
def actvec(program, monkeypatch):
    """The program, with nothing of the environment."""
    for name in ("ACTVEC_TARGET", "ACTVEC_TOKEN", "ACTVEC_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    return program


@pytest.mark.parametrize("target", ["modal://actvec", "modal://actvec-70m/main", " modal://a.b/ "])
def test_a_target_names_an_app_and_perhaps_an_environment(target):
    assert str(ModalDeployment.parse(target)) == target.strip().rstrip("/")


@pytest.mark.parametrize("target", ["modal://", "modal:///main", "modal://a/b/c", "modal://a b"])
def test_what_names_no_app_is_refused_with_an_example(target):
    with pytest.raises(InvalidTarget, match="for example modal://actvec"):
        AsyncClient(target, token=TOKEN)


def test_the_directory_of_an_app_that_never_had_a_worker_is_made(monkeypatch):
    asked = {}
    monkeypatch.setattr(modal.Dict, "from_name", lambda name, **how: asked.update(how, name=name))
    ModalDeployment.parse("modal://actvec/main")
    expected = {"name": "actvec-workers", "environment_name": "main", "create_if_missing": True}
    assert asked == expected


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
async def test_a_worker_is_given_up_where_its_call_ended_not_where_nobody_answers(
    monkeypatch, error, says
):
    monkeypatch.setattr(modal.Cls, "from_name", lambda *_, **__: FakeExtractor(error))
    starting = await ModalDeployment.parse("modal://actvec").start()
    assert await starting.error() == says


class FakeExtractor:
    """The class of an app, whose `serve` is a call that ends with an error."""

    def __init__(self, error):
        self.serve = self.spawn = self
        self._error = error

    def __call__(self):
        return self

    async def aio(self):
        return FakeCall(self._error)


def test_without_modal_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "modal", None)
    with pytest.raises(MissingExtra, match=r"pip install 'actvec\[modal\]'"):
        AsyncClient("modal://actvec", token=TOKEN)


def test_the_program_says_what_is_missing(actvec):
    code, _, errors = actvec("info", "--target", "modal://actvec")
    assert (code, errors) == (
        2,
        "Error: the workers of modal://actvec want a token: give that of the secret actvec-token"
        " with --token / ACTVEC_TOKEN\n",
    )


def test_workers_are_those_of_an_app(actvec):
    code, _, errors = actvec("info", "--target", "127.0.0.1:1", "--workers", "2")
    assert code == 2
    assert "127.0.0.1:1 is one server; workers are those of a deployment" in errors


@pytest.fixture
async def asleep():
    async with proxy_without_a_server() as port:
        yield port


async def test_a_server_that_is_asleep_is_waited_for(asleep):
    waits = []
    waking = Waking(0.2, lambda seconds, what: waits.append((seconds, what)), every=0.1)
    async with AsyncClient(f"127.0.0.1:{asleep}", timeout=1.5, waking=waking) as client:
        with pytest.raises(ServerUnavailable, match="503"):
            await client.info()
    assert len(waits) == 2
    assert waits[0][1] == f"127.0.0.1:{asleep} is asleep and was told to wake up"
