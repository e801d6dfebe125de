"""`modal://`: how a target names an app on Modal, and what is said where that cannot be used."""

import sys

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
