"""The deployed app, called as its users call it, on a control plane of our own.

The containers run `modal`'s own entry point, and reach clients through a tunnel.
"""

import asyncio
import json
import threading

import modal
import numpy as np
import pytest

from actvec.client import Client, TlsFiles, Waking, WorkerNotAwake
from actvec.server.means.store import MeanStore
from tests.modal.control_plane import ControlPlane
from tests.modal.stand_ins import tls_tunnel

# Containers start at their own pace on a busy machine.
pytestmark = pytest.mark.timeout(300)

TOKEN = "of-the-secret"  # noqa: S105 - of the tests
TEXT = "The tide comes back twice a day, and nobody is surprised."
EXTRACTOR = "Pythia12BActivationExtractor"


@pytest.fixture(scope="module")
def open_tunnel(authority):
    """Exposes a port of this machine as Modal does; returns the host and port outside."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    tunnel = tls_tunnel(authority.issue("deployed", "127.0.0.1"))
    opened = []

    async def start(port):
        opened.append(tunnel(port))
        address = await opened[-1].__aenter__()
        return address.host, address.port

    async def close():
        for one in opened:
            await one.__aexit__(None, None, None)

    yield lambda port: asyncio.run_coroutine_threadsafe(start(port), loop).result()
    asyncio.run_coroutine_threadsafe(close(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def plane(open_tunnel, tmp_path_factory):
    """A workspace with the demo model under a name of its own; this machine has an account."""
    plane = ControlPlane(tmp_path_factory.mktemp("modal"), open_tunnel)
    plane.add_secret("actvec-token", ACTVEC_TOKEN=TOKEN)
    plane.deploy("actvec.modal.app", "--name", "trial", ACTVEC_MODAL_MODEL="demo")
    corpora = plane.volume("actvec-data") / "corpora"
    corpora.mkdir()
    rows = [{"id": f"d{n}", "text": f"In {1900 + n} the bridge was closed."} for n in range(9)]
    (corpora / "bridges.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patched:
        for name, value in plane.environment.items():
            patched.setenv(name, value)
        modal.Client._set_env_client(None)
        yield plane
        modal.Client._set_env_client(None)
    plane.close()


@pytest.fixture(scope="module")
def extractor(plane):
    """The class, by its name."""
    assert plane.deployed.keys() == {"trial"}
    return modal.Cls.from_name("trial", EXTRACTOR)()


def test_class_is_called_by_name(extractor):
    made = extractor.get_activation_vector.remote(text=TEXT, pooling_strategy="long")
    assert made["shape"] == [len(made["vector"])] == [512]
    assert made["stamp"]["model"]["model"] == "demo"
    with pytest.raises(RuntimeError, match="no corpus mean 'latest'"):
        extractor.get_activation_vector.remote(text=TEXT, center=True)
    with pytest.raises(ValueError, match="center: is of type float"):
        extractor.get_activation_vector.remote(text=TEXT, center=1.5)


def test_corpus_is_computed_by_shards(plane, extractor):
    """By the coordinators, on a machine of their own, which call the class."""
    modal.Function.from_name("trial", "corpus_mean").remote("bridges.jsonl", shards=2)
    data = plane.volume("actvec-data")
    (mean,) = MeanStore(data / "means").records()
    assert (mean.name, mean.documents) == ("bridges", 9)
    modal.Function.from_name("trial", "vectors").remote("bridges.jsonl", shards=2, center="latest")
    made = [json.loads(path.read_text()) for path in data.glob("vectors/*/*/summary.json")]
    assert sum(part["vectors"] for part in made) == 9
    centered = extractor.get_activation_vector.remote(text=TEXT, center=True)
    for one in (*made, centered):
        assert one["stamp"]["corpus_mean_id"] == mean.id
    options = {"add_generation_prompt": True, "chat_template_kwargs": '{"mark": "!"}'}
    modal.Function.from_name("trial", "vectors").remote(
        "bridges.jsonl", shards=1, name="chosen", pools="mean, last", **options
    )
    stamp = json.loads((data / "vectors/chosen/1-of-1/summary.json").read_text())["stamp"]
    assert [pool["name"] for pool in stamp["pools"]] == ["mean", "last"]
    assert (stamp["add_generation_prompt"], stamp["chat_template_kwargs"]) == (
        True,
        '{"mark": "!"}',
    )


@pytest.fixture
def client_of(authority):
    """A client of an app's workers."""

    def client_of(app):
        tls = TlsFiles(ca=authority.pem)
        return Client(f"modal://{app}", token=TOKEN, tls=tls, waking=Waking(250, every=0.1))

    return client_of


def test_client_starts_a_worker_behind_a_tunnel(plane, extractor, client_of):
    expected = extractor.get_activation_vector.remote(text=TEXT)["vector"]
    with client_of("trial") as client:
        vector = client.extract(TEXT, mode="short")
    assert np.array_equal(vector.values, np.float32(expected))
    (directory,) = plane.dicts.values()
    assert len(directory) == 1


def test_missing_model_is_reported_to_the_client(plane, client_of):
    plane.deploy("actvec.modal.app", "--name", "broken", ACTVEC_MODAL_MODEL="/absent/model")
    with client_of("broken") as client, pytest.raises(WorkerNotAwake, match="no model directory"):
        client.info()
