"""Clients of the shared server, and proxies that cut connections."""

from collections.abc import Callable, Iterator

import pytest

from actvec.client import Client

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
