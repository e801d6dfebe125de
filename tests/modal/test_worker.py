"""The worker without a server: its dictionaries, against the server's own vectors."""

import subprocess
import sys

import numpy as np
import pytest

from actvec.client import Client
from actvec.client.samples import sample_corpus
from actvec.modal.worker import Worker
from actvec.pooling import pooling_matrix
from actvec.server.config import ModelOptions
from actvec.server.errors import InputError, MeanNotFoundError, RequestError
from actvec.server.means.store import MeanStore
from actvec.server.model.demo import WIDTH

TEXT = "The tide comes back twice a day, and nobody is surprised."


@pytest.fixture(scope="module")
def served(start_server, tmp_path_factory):
    """A server with a mean, and the folder where it keeps it."""
    directory = tmp_path_factory.mktemp("data")
    server = start_server("--model=demo", data_dir=directory)
    with Client(server.target) as client:
        client.corpus_mean(sample_corpus(), job="samples")
        yield client, directory


@pytest.fixture(scope="module")
def worker(served):
    return Worker.load(ModelOptions(model="demo"), served[1])


@pytest.mark.parametrize("strategy", ["short", "long"])
@pytest.mark.parametrize("center", [None, "latest"])
def test_its_vector_is_that_of_the_server(served, worker, strategy, center):
    client, _ = served
    made = worker.get_activation_vector(TEXT, pooling_strategy=strategy, center=center)
    expected = client.extract(TEXT, mode=strategy, center=center)
    assert np.array_equal(np.float32(made["vector"]), expected.values)
    assert made["shape"] == [len(expected.values)]
    assert made["d_model"] == WIDTH
    assert made["layers_used"] == [4, 5, 6]
    assert made["activation_types"] == ["resid_post"]
    assert made["pooling_strategy"] == strategy
    assert made["centered"] == (center is not None)
    assert made["tokens"] == made["tokens_used"] == expected.tokens
    assert made["stamp"]["model"]["model"] == "demo"
    assert made["stamp"].get("corpus_mean_sha256", "") == expected.stamp.corpus_mean_sha256


def test_mean_is_read_once_per_id(served, worker, monkeypatch):
    client, _ = served
    read = []
    content = MeanStore.content

    def counted(store, record):
        read.append(record.id)
        return content(store, record)

    monkeypatch.setattr(MeanStore, "content", counted)
    first = client.corpus_mean(sample_corpus(), job="first", name="mine")
    for center in ("mine", "latest", first.id):
        made = worker.get_activation_vector(TEXT, center=center)
        assert made["stamp"]["corpus_mean_id"] == first.id
    assert read == [first.id]
    newer = client.corpus_mean([TEXT], job="newer", name="mine")
    assert worker.get_activation_vector(TEXT, center="mine")["stamp"]["corpus_mean_id"] == newer.id
    client.delete_mean(newer.id)
    assert worker.get_activation_vector(TEXT, center="mine")["stamp"]["corpus_mean_id"] == first.id
    assert read == [first.id, newer.id]


def test_its_matrix_pools_to_its_vector(worker):
    matrix = worker.get_activation_matrix(TEXT)
    vector = worker.get_activation_vector(TEXT, pooling_strategy="long")["vector"]
    assert matrix["shape"] == [matrix["tokens"], WIDTH]
    pooled = pooling_matrix("long", matrix["tokens"]) @ np.float32(matrix["matrix"])
    assert np.allclose(pooled.ravel(), vector, rtol=1e-5, atol=1e-6)


def test_it_says_what_is_loaded(worker):
    info = worker.get_model_info()
    assert info["model"] == "demo"
    assert info["n_layers"] == 8
    assert info["engine"] == "packed"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"text": " "}, InputError, "is empty or blank"),
        ({"pooling_strategy": "medium"}, RequestError, "short, long"),
        ({"truncation": "middle"}, RequestError, "error, start, end"),
        ({"center": "nobody"}, MeanNotFoundError, "nobody"),
        ({"center": 3}, RequestError, "center: is of type int; use a corpus mean's id or name"),
        ({"center": ["latest"]}, RequestError, "is of type list"),
        ({"prepend_bos": "no"}, RequestError, "use True, False or None"),
        ({"text": b"A text."}, RequestError, "text: is of type bytes; use a str"),
        ({"text": None}, RequestError, "use a str"),
    ],
)
def test_impossible_settings_are_errors(worker, options, error, message):
    with pytest.raises(error, match=message):
        worker.get_activation_vector(**{"text": TEXT} | options)


def test_true_means_the_latest_mean(worker):
    made = worker.get_activation_vector(TEXT, center=True)
    assert made == worker.get_activation_vector(TEXT, center="latest")
    assert made["centered"]
    assert not worker.get_activation_vector(TEXT, center=False)["centered"]
    assert worker.find_corpus_mean(True) == made["stamp"]["corpus_mean_id"]


LIFE = """
import gc, pathlib, socket, sys, threading
from actvec.modal.worker import make_worker
from actvec.modal.volume import Site
worker = make_worker("demo", Site(pathlib.Path(sys.argv[1]), pathlib.Path("/data"), None))
gc.collect()
print(threading.enumerate() == [threading.main_thread()])
print([thing for thing in gc.get_objects() if isinstance(thing, socket.socket)])
print(any(name.split(".")[0] == "grpc" for name in sys.modules))
"""


@pytest.mark.slow
def test_snapshot_has_no_thread_socket_or_grpc(tmp_path):
    command = [sys.executable, "-c", LIFE, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split("\n") == ["True", "[]", "False", ""]
