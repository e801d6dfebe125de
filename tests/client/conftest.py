"""Clients of the shared server, proxies that cut connections, and files to fetch a corpus from."""

import threading
from collections.abc import Callable, Iterator

import pytest

from actvec.client import Client
from actvec.client.cli import main
from actvec.client.samples import sample_corpus
from actvec.client.transport.connection import Connection
from tests.client.corpora.c4 import write_shards
from tests.proxy import CuttingProxy


@pytest.fixture
def cutting_proxy() -> Iterator[Callable[[str], CuttingProxy]]:
    """Make a proxy in front of a server."""
    proxies: list[CuttingProxy] = []

    def make(target: str) -> CuttingProxy:
        proxies.append(CuttingProxy(target))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


class Breaks:
    """Breaks of connections, as clients notice them.

    Attributes:
        on_break: Called at each, before the client reconnects.
    """

    def __init__(self) -> None:
        self.on_break: Callable[[], object] = lambda: None
        self._noticed = threading.Event()

    def notice(self) -> None:
        self._noticed.set()
        self.on_break()

    def wait(self) -> None:
        """Wait for the next break since the last wait."""
        assert self._noticed.wait(60)
        self._noticed.clear()


@pytest.fixture
def breaks(monkeypatch) -> Breaks:
    """The breaks that clients notice from now on."""
    breaks, broke = Breaks(), Connection.broke

    def noticed(connection: Connection) -> None:
        broke(connection)
        breaks.notice()

    monkeypatch.setattr(Connection, "broke", noticed)
    return breaks


@pytest.fixture
def client(demo_server) -> Iterator[Client]:
    with Client(demo_server.target) as client:
        yield client


@pytest.fixture(scope="session")
def server_with_mean(start_server):
    """A server of the demo model that holds the mean of the sample corpus."""
    server = start_server("--model=demo")
    with Client(server.target) as client:
        client.corpus_mean(sample_corpus(), job="samples")
    return server


@pytest.fixture
def program(capfd):
    """Run `actvec` in this process; return exit code, standard output and standard error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ending:
            main([str(argument) for argument in arguments])
        output, errors = capfd.readouterr()
        assert "Traceback" not in errors
        return ending.value.code, output, errors

    return run


@pytest.fixture
def actvec(program, demo_server, monkeypatch):
    """Run `actvec` against the shared server."""
    monkeypatch.setenv("ACTVEC_TARGET", demo_server.target)
    return program


@pytest.fixture
def c4(tmp_path):
    """A folder of C4-shaped files."""
    return write_shards(tmp_path / "c4" / "en")


@pytest.fixture
def c4_dataset(c4):
    """The same, in the layout of the hub's dataset."""
    (c4.parent / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: en\n  data_files:\n  - split: train\n    path: en/c4-train.*.json.gz\n"
        "- config_name: other\n  data_files: other/*.json.gz\n---\n"
    )
    write_shards(c4.parent / "other", shards=1)
    return c4.parent
