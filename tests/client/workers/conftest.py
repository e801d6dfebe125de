"""Deployments of running servers, and clients of them."""

import pytest

from actvec.client import (
    AsyncClient,
    Client,
    TlsFiles,
    Waking,
)
from tests.client.workers.streams import TEXTS, TOKEN
from tests.modal.stand_ins import LocalDeployment


@pytest.fixture(scope="session")
def servers(start_server, authority):
    """Two servers of the demo model, with TLS and the token."""
    issued = authority.issue("workers", "127.0.0.1")
    options = (f"--tls-cert={issued.cert}", f"--tls-key={issued.key}")
    # Few documents at a time, so that a stream is in the middle when its worker dies.
    options += ("--stream-documents=8",)
    return [start_server(*options, env={"ACTVEC_TOKEN": TOKEN}).target for _ in range(2)]


@pytest.fixture(scope="session")
def expected(servers, authority):
    """The vectors of an undisturbed stream to one server."""
    with Client(f"https://{servers[0]}", token=TOKEN, tls=TlsFiles(ca=authority.pem)) as client:
        return {one.index: one.values for one in client.stream(TEXTS, mode="short")}


@pytest.fixture
def deploy(servers):
    """Deployments of the two servers."""
    made = []

    def deploy(**options):
        made.append(LocalDeployment(*servers, **options))
        return made[-1]

    yield deploy
    for deployment in made:
        deployment.close()


@pytest.fixture
def client_of(authority):
    def client_of(deployment, *, token=TOKEN, wake_for=30, on_wait=None, **settings):
        return AsyncClient(
            deployment,
            token=token,
            tls=TlsFiles(ca=authority.pem),
            waking=Waking(wake_for, on_wait, every=0.05),
            **settings,
        )

    return client_of
