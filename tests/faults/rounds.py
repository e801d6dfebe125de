"""Rounds of two jobs, a mean and vectors, disturbed at random and then checked."""

import collections
import json
import random
import signal
import threading

from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load

from actvec.client import Client
from actvec.client.documents import open_documents
from tests.faults.supervisors import ClientSupervisor

WORDS = "river gate stone bell winter ferry lantern orchard bridge".split()  # noqa: SIM905 - prose
DOCUMENTS = 500
WEIGHTS = {
    "connection cut": 4,
    "connection cut in mid-message": 4,
    "connection half closed": 4,
    "connection stalled": 4,
    "client killed": 4,
    "server killed": 2,
    "server terminated": 1,
}


def write_corpus(path, seed):
    """Write documents of 1 to 80 words, one per line."""
    chance = random.Random(seed)  # noqa: S311 - texts, not secrets
    with path.open("w") as file:
        for number in range(DOCUMENTS):
            text = " ".join(chance.choices(WORDS, k=chance.randint(1, 80)))
            file.write(json.dumps({"id": f"d{number}", "text": text}) + "\n")


class Trouble:
    """Injects faults in a thread, up to a number and until it is stopped.

    `weights` gives the probability of each; unnamed faults do not happen. A pause, and a stall of
    connections, takes `longest` seconds at the most.
    """

    def __init__(self, chance, most, server, clients, weights=WEIGHTS, *, longest=2):
        self._most = most
        self._weights = weights
        self._longest = longest
        self.counts = collections.Counter()
        self._chance = chance
        self._server = server
        self._clients = clients
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self):
        self._ended.set()
        self._thread.join()

    def _run(self):
        proxy = self._server.proxy
        faults = {
            "connection cut": proxy.cut,
            "connection cut in mid-message": lambda: proxy.cut_after(self._chance.randrange(2000)),
            "connection half closed": proxy.half_close,
            "connection stalled": lambda: proxy.stall(self._chance.uniform(0.1, self._longest)),
            "client killed": lambda: self._chance.choice(self._clients).kill(),
            "server killed": lambda: self._server.restart(signal.SIGKILL),
            "server terminated": lambda: self._server.restart(signal.SIGTERM),
        }
        while self.counts.total() < self._most:
            if self._ended.wait(self._chance.uniform(0.05, self._longest)):
                return
            (name,) = self._chance.choices(list(self._weights), self._weights.values())
            faults[name]()
            self.counts[name] += 1


def run_round(number, *, chance, most, weights, server, undisturbed, directory, longest=2):
    """Run two jobs over their own corpus, disturbed; return the faults and the clients started.

    Raises:
        AssertionError: something was lost, doubled or changed.
    """
    corpus = directory / f"corpus-{number}.jsonl"
    write_corpus(corpus, seed=chance.random())
    mean = ClientSupervisor(
        *("--target", server.proxy.target, "mean", "compute", corpus),
        *("--name", f"round-{number}", "--json", "--retry-for", "120"),
    )
    out = directory / f"vectors-{number}"
    vectors = ClientSupervisor(
        *("--target", server.proxy.target, "stream", corpus, "--mode", "short"),
        *("--out", out, "--format", "shards", "--dtype", "float32", "--rows-per-file", 100),
        *("--save-every", 0.5, "--resume", "--retry-for", "120"),
    )
    trouble = Trouble(chance, most, server, [mean, vectors], weights, longest=longest)
    try:
        record = json.loads(mean.wait())
        vectors.wait()
    finally:
        trouble.end()
    assert_every_vector_is_there_once(undisturbed, corpus, out)
    assert_mean_is_that_of_an_undisturbed_job(server, undisturbed, corpus, record)
    return trouble.counts, mean.runs + vectors.runs


def assert_every_vector_is_there_once(undisturbed, corpus, out):
    rows = {}
    for index in sorted(out.glob("vectors-*.jsonl")):
        shard = load(index.with_suffix(".safetensors").read_bytes())["vec"]
        for line in index.open():
            row = json.loads(line)
            assert row["id"] not in rows
            rows[row["id"]] = shard[row["row"]]
    with Client(undisturbed.target) as client:
        expected = {v.id: v.values for v in client.stream(open_documents(corpus), mode="short")}
    assert rows.keys() == expected.keys()
    for document, values in expected.items():
        assert_array_equal(rows[document], values)


def assert_mean_is_that_of_an_undisturbed_job(server, undisturbed, corpus, record):
    with Client(undisturbed.target) as client:
        other = client.corpus_mean(open_documents(corpus), job=f"{corpus.stem}-undisturbed")
        expected = load(client.download_mean(other.id).content)
    with Client(server.proxy.target) as client:
        found = load(client.download_mean(record["id"]).content)
    assert record["documents"] == DOCUMENTS
    assert record["corpus_sha256"] == other.corpus_sha256
    assert_array_equal(found["counts"], expected["counts"])
    assert_allclose(found["sums"], expected["sums"], rtol=1e-12, atol=1e-12)
