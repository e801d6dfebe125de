"""Clients of the shared server, and proxies that cut connections."""

from collections.abc import Callable, Iterator

import pytest

from actvec.client import Client
from actvec.client.cli import main
from actvec.client.samples import sample_corpus

from ..proxy import CuttingProxy


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
