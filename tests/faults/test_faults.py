"""Servers and clients killed, connections cut, stalled and half closed, at random: nothing is lost.

    pytest tests/faults -s --faults 200 --fault-seed 1

is the long form; `make soak` runs it.
"""

import collections
import json
import random
import signal
import threading

import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load

from actvec.client import Client
from actvec.client.documents import open_documents

from .supervisors import ClientSupervisor, ServerSupervisor

WORDS = "river gate stone bell winter ferry lantern orchard bridge".split()  # noqa: SIM905 - prose
DOCUMENTS = 500


def write_corpus(path, seed):
    """Documents of 1 to 80 words, a line each."""
    chance = random.Random(seed)  # noqa: S311 - texts, not secrets
    with path.open("w") as file:
        for number in range(DOCUMENTS):
            text = " ".join(chance.choices(WORDS, k=chance.randint(1, 80)))
            file.write(json.dumps({"id": f"d{number}", "text": text}) + "\n")


class Trouble:
    """Injects faults, in a thread, at most so many and until it is told to end."""

    def __init__(self, chance, most, server, clients):
        self._most = most
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
            "connection stalled": lambda: proxy.stall(self._chance.uniform(0.1, 2)),
            "client killed": lambda: self._chance.choice(self._clients).kill(),
            "server killed": lambda: self._server.restart(signal.SIGKILL),
            "server terminated": lambda: self._server.restart(signal.SIGTERM),
        }
        weights = [4, 4, 4, 4, 4, 2, 1]
        while self.counts.total() < self._most:
            if self._ended.wait(self._chance.uniform(0.05, 2)):
                return
            (name,) = self._chance.choices(list(faults), weights)
            faults[name]()
            self.counts[name] += 1


@pytest.mark.timeout(0)
def test_nothing_is_lost_whatever_breaks(pytestconfig, tmp_path, demo_server):
    wanted, seed = pytestconfig.getoption("--faults"), pytestconfig.getoption("--fault-seed")
    chance = random.Random(seed)  # noqa: S311 - faults, not secrets
    server = ServerSupervisor(tmp_path / "data", "--commit-seconds=0.2")
    counts: collections.Counter[str] = collections.Counter()
    rounds = runs = 0
    try:
        while counts.total() < wanted:
            rounds += 1
            corpus = tmp_path / f"corpus-{rounds}.jsonl"
            write_corpus(corpus, seed=1000 * seed + rounds)
            mean = ClientSupervisor(
                *("--target", server.proxy.target, "mean", "compute", corpus),
                *("--name", f"round-{rounds}", "--json", "--retry-for", "120"),
            )
            out = tmp_path / f"vectors-{rounds}"
            vectors = ClientSupervisor(
                *("--target", server.proxy.target, "stream", corpus, "--mode", "short"),
                *("--out", out, "--format", "shards", "--dtype", "float32", "--rows-per-file", 100),
                *("--save-every", 0.5, "--resume", "--retry-for", "120"),
            )
            trouble = Trouble(chance, wanted - counts.total(), server, [mean, vectors])
            try:
                record = json.loads(mean.wait())
                vectors.wait()
            finally:
                trouble.end()
            counts += trouble.counts
            runs += mean.runs + vectors.runs
            assert_every_vector_is_there_once(demo_server, corpus, out)
            assert_mean_is_that_of_an_undisturbed_job(server, demo_server, corpus, record)
    finally:
        server.close()
    print(
        f"\nseed {seed}: {counts.total()} faults in {rounds} jobs of {DOCUMENTS} documents: "
        + ", ".join(f"{count} x {name}" for name, count in counts.most_common())
        + f"; {server.starts} servers and {runs} clients were started;"
        " every mean is that of an undisturbed job, to 1e-12, counts exactly, and every vector is"
        " there once, bit for bit"
    )


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
