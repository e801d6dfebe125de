"""A corpus over many workers gives the result of one, even if a worker is killed."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose
from safetensors.numpy import load

from actvec.modal.sharding import NoShardsError, merge_means, run_shards, shards_of
from actvec.server.errors import EngineError, MeanNotFoundError, RequestError
from actvec.server.means.store import MeanStore
from tests.modal.containers import TEXTS, Containers
from tests.volume import FolderVolume


@pytest.fixture
def modal(tmp_path, demo_engine, demo_model):
    return Containers(tmp_path, demo_engine, demo_model)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, demo_engine, demo_model):
    """The sums of the mean that a single worker makes."""
    modal = Containers(tmp_path_factory.mktemp("whole"), demo_engine, demo_model)
    (made,) = run_shards(["1/1"], modal.map("mean", name="whole", options={}))
    assert (made["documents"], made["skipped"][0]["documents"]) == (59, 1)
    (path,) = modal.committed.rglob("means/*.safetensors")
    return load(path.read_bytes())


class KilledError(Exception):
    """A preempted container: only what is on the volume by then remains."""


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_merge_to_one_workers_mean(modal, whole, count, monkeypatch):
    victim = f"{count}/{count}"
    commits = FolderVolume.commit

    def commit(volume):
        commits(volume)
        # In the middle: some work is durable, and some is not.
        if modal.attempts[victim] == 1 and list(volume.committed.rglob("checkpoint-*")):
            raise KilledError

    modal.on_start = lambda shard: monkeypatch.setattr(
        FolderVolume, "commit", commit if shard == victim else commits
    )
    shards = shards_of(count)
    made = run_shards(shards, modal.map("mean", name="bridges", options={}))
    assert modal.attempts == {shard: 2 if shard == victim else 1 for shard in shards}
    assert sum(part["documents"] for part in made) == 59

    record = merge_means(modal.site(), "bridges", dict(zip(shards, made, strict=True)))
    assert record.name == "bridges"
    assert record.documents == 59
    assert [entry.documents for entry in record.skipped] == [1]
    store = MeanStore(modal.committed / "means")
    tensors = load(store.content(record))
    assert_allclose(tensors["sums"], whole["sums"], rtol=1e-12, atol=1e-12)
    assert np.array_equal(tensors["counts"], whole["counts"])
    assert not list((modal.committed / "shards").rglob("*.*"))


def test_shards_hold_each_vector_once(modal):
    run = modal.map("vectors", name="short", options={"mode": "short", "format": "shards"})
    made = run_shards(shards_of(3), run)
    assert sum(part["vectors"] for part in made) == 59
    assert sum(part["failed"] for part in made) == 1
    found = {}
    for index in (modal.committed / "vectors" / "short").rglob("vectors-*.jsonl"):
        vectors = load(index.with_suffix(".safetensors").read_bytes())["vec"]
        for row in map(json.loads, index.read_text().splitlines()):
            assert row["index"] not in found
            found[row["index"]] = vectors[row["row"]]
    assert found.keys() == set(range(60)) - {5}
    worker = modal.worker(modal.site())
    expected = np.float16(worker.get_activation_vector(TEXTS[7])["vector"])
    assert np.array_equal(found[7], expected)


def test_lost_mean_is_no_empty_shard(modal):
    shards = shards_of(2)

    def compute():
        made = run_shards(shards, modal.map("mean", name="bridges", options={}))
        return dict(zip(shards, made, strict=True))

    done = compute()
    shutil.rmtree(modal.committed / "shards/bridges/2-of-2/means")
    with pytest.raises(MeanNotFoundError, match="shard 2/2 is not on the volume"):
        merge_means(modal.site(), "bridges", done)
    assert merge_means(modal.site(), "bridges", compute()).documents == 59


def test_finished_shard_is_skipped(modal):
    options = {"mode": "short", "format": "shards"}
    first = run_shards(["1/30"], modal.map("vectors", name="v", options=options))
    again = run_shards(["1/30"], modal.map("vectors", name="v", options=options))
    assert again[0]["worker_seconds"] == 0
    assert {**again[0], "worker_seconds": first[0]["worker_seconds"]} == first[0]
    with pytest.raises(NoShardsError, match="other vectors already"):
        run_shards(["1/30"], modal.map("vectors", name="v", options={"mode": "long"}), attempts=1)


def test_another_corpus_is_no_finished_shard(modal):
    """The same file name, with a corrected text."""
    options = {"mode": "short", "format": "shards"}
    run = modal.map("vectors", name="v", options=options)
    run_shards(["1/30"], run)
    modal.corpus("bridges.jsonl", ["Corrected.", *TEXTS[1:]])
    with pytest.raises(NoShardsError, match="other vectors already"):
        run_shards(["1/30"], run, attempts=1)


def test_failing_shards_are_named():
    tried = Counter()

    def run(shards):
        for shard in shards:
            tried[shard] += 1
            yield EngineError("no memory") if shard == "2/3" else {"shard": shard}

    with pytest.raises(NoShardsError, match=r"1 of 3 shards failed 2 times.*2/3: .*no memory"):
        run_shards(shards_of(3), run, attempts=2)
    assert tried == {"1/3": 1, "2/3": 2, "3/3": 1}


@pytest.mark.parametrize("count", [0, -1])
def test_no_shards_are_refused(count):
    with pytest.raises(RequestError, match="1 or more"):
        shards_of(count)


def test_name_is_no_path(modal):
    with pytest.raises(NoShardsError, match="letters, digits"):
        run_shards(["1/1"], modal.map("mean", name="../up", options={}), attempts=1)
