"""A server in a thread of a program that runs no event loop."""

import threading

import pytest

from actvec.client import Client, ServerUnavailable
from actvec.modal.background import BackgroundServer
from actvec.server.config import AccessOptions, ModelOptions, ServerConfig
from actvec.server.errors import EngineLostError, StartupError
from actvec.server.model.demo import WIDTH


def test_server_leaves_no_thread(tmp_path):
    failures = []
    others = set(threading.enumerate())
    server = BackgroundServer(ServerConfig(port=0, data_dir=tmp_path), failures.append)
    port = server.start()
    with Client(f"127.0.0.1:{port}") as client:
        assert client.extract("A text.", mode="short").values.shape == (WIDTH,)
        # Its texts are tokenized on a thread.
        assert len(list(client.stream(["One.", "Two."], mode="short"))) == 2
        server.stop()
        with pytest.raises(ServerUnavailable):
            client.info()
    assert failures == []
    for thread in set(threading.enumerate()) - others:
        if thread.name.startswith("actvec"):
            thread.join(30)
            assert not thread.is_alive(), thread.name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ServerConfig(host="0.0.0.0", access=AccessOptions()), "everybody there could call"),  # noqa: S104
        (ServerConfig(model=ModelOptions(model="demo", layers=(99,))), "99"),
    ],
)
def test_unusable_option_fails_at_the_start(config, message):
    server = BackgroundServer(config, pytest.fail)
    with pytest.raises(StartupError, match=message):
        server.start()


def test_lost_engine_is_reported(tmp_path, monkeypatch):
    failed: list[Exception] = []
    told = threading.Event()

    def on_failure(error: Exception) -> None:
        failed.append(error)
        told.set()

    async def lost(_server, _timeout):
        return EngineLostError("the device is lost")

    monkeypatch.setattr("actvec.server.program.server.Server.lost", lost)
    server = BackgroundServer(ServerConfig(port=0, data_dir=tmp_path), on_failure)
    server.start()
    assert told.wait(30)
    assert isinstance(failed[0], EngineLostError)
    server.stop()
