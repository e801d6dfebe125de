"""A corpus over many workers: together they make what one makes, also when one is killed."""

import asyncio
import json
import os
import shutil
import signal
import threading
from collections import Counter

import numpy as np
import psutil
import pytest
from numpy.testing import assert_allclose
from safetensors.numpy import load

from actvec.server.errors import CutShortError, EngineLostError, MeanNotFoundError, RequestError
from actvec.server.fanout import NoShardsError, merge_means, run_shards, shards_of
from actvec.server.means.store import MeanStore
from actvec.server.programs import ProgramError

from ..volume import FolderVolume
from .containers import TEXTS, Containers


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


def kill_a_program():
    """Kill, as by the machine's memory running out, the `actvec` that runs beside this process."""
    for child in psutil.Process().children():
        if "actvec.client.cli" in " ".join(child.cmdline()):
            os.kill(child.pid, signal.SIGKILL)
            return True
    return False


def engine_threads():
    return {one for one in threading.enumerate() if one.name.startswith("actvec-engine")}


def join(threads):
    """Return when they have ended."""
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_mean_of_the_shards_is_that_of_one_worker_though_a_shard_is_killed(
    modal, whole, count, monkeypatch
):
    victim = f"{count}/{count}"
    commits = FolderVolume.commit

    def commit(volume):
        commits(volume)
        # In the middle: something is durable already, and not everything.
        if modal.attempts[victim] == 1 and list(volume.committed.rglob("checkpoint-*")):
            killed.append(kill_a_program())

    killed: list[bool] = []
    modal.on_start = lambda shard: monkeypatch.setattr(
        FolderVolume, "commit", commit if shard == victim else commits
    )
    shards = shards_of(count)
    made = run_shards(shards, modal.map("mean", name="bridges", options={}))
    assert any(killed)
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


def test_the_vectors_of_the_shards_are_each_documents_once(modal):
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
    expected = worker.get_activation_vector(TEXTS[7])["vector"].astype(np.float16)
    assert np.array_equal(found[7], expected)


def test_an_engine_that_is_lost_ends_its_shard(modal, monkeypatch):
    async def lost(_server, _timeout):
        return EngineLostError("the device is lost")

    monkeypatch.setattr("actvec.server.server.Server.lost", lost)
    with pytest.raises(NoShardsError, match="the device is lost"):
        run_shards(["1/1"], modal.map("mean", name="bridges", options={}), attempts=1)


async def test_a_server_that_cannot_end_says_so_and_leaves_nothing_that_runs(
    modal, held_engine, demo_model
):
    before = engine_threads()
    containers = Containers(modal.root / "held", held_engine, demo_model)
    runner = containers.runner(grace=0.1)
    computing = asyncio.create_task(runner.mean("bridges.jsonl", "bridges", "1/1", {}))
    await held_engine.entered()
    kill_a_program()
    # The engine is at a step still: whoever used it too would run it from two threads.
    with pytest.raises(CutShortError, match="not everything was done"):
        await computing
    assert not [task for task in asyncio.all_tasks() if "Server.lost" in repr(task.get_coro())]
    held_engine.release()
    await asyncio.to_thread(join, engine_threads() - before)


def test_a_shard_whose_mean_is_lost_is_not_taken_for_one_without_documents(modal):
    shards = shards_of(2)

    def compute():
        made = run_shards(shards, modal.map("mean", name="bridges", options={}))
        return dict(zip(shards, made, strict=True))

    done = compute()
    shutil.rmtree(modal.committed / "shards/bridges/2-of-2/means")
    with pytest.raises(MeanNotFoundError, match="shard 2/2 is not on the volume"):
        merge_means(modal.site(), "bridges", done)
    assert merge_means(modal.site(), "bridges", compute()).documents == 59


def test_what_is_there_is_not_computed_again_and_not_taken_for_something_else(modal):
    options = {"mode": "short", "format": "shards"}
    first = run_shards(["1/30"], modal.map("vectors", name="v", options=options))
    again = run_shards(["1/30"], modal.map("vectors", name="v", options=options))
    assert again[0]["worker_seconds"] == 0
    assert {**again[0], "worker_seconds": first[0]["worker_seconds"]} == first[0]
    with pytest.raises(NoShardsError, match="other vectors already"):
        run_shards(["1/30"], modal.map("vectors", name="v", options={"mode": "long"}), attempts=1)


def test_shards_that_fail_every_time_are_named_and_the_others_are_kept():
    tried = Counter()

    def run(shards):
        for shard in shards:
            tried[shard] += 1
            yield ProgramError("no memory") if shard == "2/3" else {"shard": shard}

    with pytest.raises(NoShardsError, match=r"1 of 3 shards failed 2 times.*2/3: no memory"):
        run_shards(shards_of(3), run, attempts=2)
    assert tried == {"1/3": 1, "2/3": 2, "3/3": 1}


@pytest.mark.parametrize("count", [0, -1])
def test_no_shard_at_all_is_refused(count):
    with pytest.raises(RequestError, match="1 or more"):
        shards_of(count)


def test_a_name_is_no_path(modal):
    with pytest.raises(NoShardsError, match="letters, digits"):
        run_shards(["1/1"], modal.map("mean", name="../up", options={}), attempts=1)
