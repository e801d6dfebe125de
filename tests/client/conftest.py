"""Clients of the shared server, proxies that cut connections, and files to fetch a corpus from."""

from collections.abc import Callable, Iterator

import pytest

from actvec.client import Client
from actvec.client.cli import main
from actvec.client.samples import sample_corpus

from ..proxy import CuttingProxy
from .c4 import write_shards


@pytest.fixture
def cutting_proxy() -> Iterator[Callable[[str], CuttingProxy]]:
    """Makes a proxy in front of a server."""
    proxies: list[CuttingProxy] = []

    def make(target: str) -> CuttingProxy:
        proxies.append(CuttingProxy(target))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


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
    """Run `actvec` in this process; exit code, standard output and standard error."""

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
    """The same, laid out as the hub's dataset is."""
    (c4.parent / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: en\n  data_files:\n  - split: train\n    path: en/c4-train.*.json.gz\n"
        "- config_name: other\n  data_files: other/*.json.gz\n---\n"
    )
    write_shards(c4.parent / "other", shards=1)
    return c4.parent
