"""A corpus over many workers: together they make what one makes, also when one is killed."""

import asyncio
import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.testing import assert_allclose
from safetensors.numpy import load

from actvec.server.config import AccessOptions, Limits, ModelOptions, ServerConfig
from actvec.server.coordinator import Coordinator, Figures
from actvec.server.errors import EngineLostError, RequestError
from actvec.server.fanout import (
    NoShardsError,
    ShardRunner,
    merge_means,
    run_shards,
    shards_of,
)
from actvec.server.means.store import MeanStore
from actvec.server.programs import ProgramError, actvec_command, run_json
from actvec.server.site import Site
from actvec.server.worker import Worker

from ..volume import FolderVolume

DEMO_TOKENIZER = Path(__file__).parents[2] / "server/actvec/server/demo/tokenizer.json"
TEXTS = [f"In {year} the bridge was closed for repairs." for year in range(1700, 1760)]
CONFIG = ServerConfig(
    port=0,
    access=AccessOptions(token="of-the-secret"),
    limits=Limits(commit_seconds=0.05, step_tokens=256),
    grace=5,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A worker whose model all machines of the tests borrow."""
    return Worker.load(ModelOptions(model="demo"), tmp_path_factory.mktemp("data"))


class Modal:
    """Workers on one volume, each with a disk of its own; `map` gives each shard to another."""

    def __init__(self, root, model):
        self.root = root
        self.attempts = Counter()
        self.on_start = lambda _shard: None
        self._model = model
        self._machines = 0
        corpora = root / "committed" / "corpora"
        corpora.mkdir(parents=True)
        lines = [json.dumps({"id": f"doc-{i}", "text": text}) for i, text in enumerate(TEXTS)]
        # A document that fails belongs to one shard, and is told of in the end.
        lines[5] = json.dumps({"id": "doc-5", "text": " "})
        (corpora / "bridges.jsonl").write_text("\n".join(lines))

    def site(self):
        """A machine's disk and its mount of the volume."""
        self._machines += 1
        mount = self.root / f"mount-{self._machines}"
        volume = FolderVolume(self.root / "committed", mount)
        volume.reload()
        return Site(self.root / f"local-{self._machines}", mount, volume)

    def worker(self, site):
        """The model on another machine."""
        return Worker(self._model.engine, self._model.loaded, site.local, site.replica())

    def runner(self):
        site = self.site()
        worker = self.worker(site)
        config = ServerConfig(**{**vars(CONFIG), "data_dir": site.local})
        return ShardRunner(worker, config, site)

    def map(self, method, corpus="bridges.jsonl", **arguments):
        """What `.map(..., return_exceptions=True)` of the class does, one after the other."""

        def run(shards):
            for shard in shards:
                self.attempts[shard] += 1
                self.on_start(shard)
                try:
                    call = getattr(self.runner(), method)
                    yield asyncio.run(call(corpus, shard=shard, **arguments))
                except Exception as error:
                    yield error

        return run


@pytest.fixture
def modal(tmp_path, model):
    return Modal(tmp_path, model)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model):
    """The sums of the mean that a single worker makes."""
    modal = Modal(tmp_path_factory.mktemp("whole"), model)
    (made,) = run_shards(["1/1"], modal.map("mean", name="whole", options={}))
    assert (made["documents"], made["skipped"][0]["documents"]) == (59, 1)
    (path,) = (modal.root / "committed").rglob("means/*.safetensors")
    return load(path.read_bytes())


def kill_a_program():
    """Kill, as by the machine's memory running out, the `actvec` that runs beside this process."""
    for child in psutil.Process().children():
        if "actvec.client.cli" in " ".join(child.cmdline()):
            os.kill(child.pid, signal.SIGKILL)
            return True
    return False


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

    record = merge_means(modal.site(), "bridges", shards)
    assert record.name == "bridges"
    assert record.documents == 59
    assert [entry.documents for entry in record.skipped] == [1]
    store = MeanStore(modal.root / "committed" / "means")
    tensors = load(store.content(record))
    assert_allclose(tensors["sums"], whole["sums"], rtol=1e-12, atol=1e-12)
    assert np.array_equal(tensors["counts"], whole["counts"])
    assert not (modal.root / "committed" / "shards").exists() or not list(
        (modal.root / "committed" / "shards").rglob("*.*")
    )


def test_the_vectors_of_the_shards_are_each_documents_once(modal, model):
    run = modal.map("vectors", name="short", options={"mode": "short", "format": "shards"})
    made = run_shards(shards_of(3), run)
    assert sum(part["vectors"] for part in made) == 59
    assert sum(part["failed"] for part in made) == 1
    found = {}
    for index in (modal.root / "committed" / "vectors" / "short").rglob("vectors-*.jsonl"):
        vectors = load(index.with_suffix(".safetensors").read_bytes())["vec"]
        for row in map(json.loads, index.read_text().splitlines()):
            assert row["index"] not in found
            found[row["index"]] = vectors[row["row"]]
    assert found.keys() == set(range(60)) - {5}
    expected = model.get_activation_vector(TEXTS[7])["vector"].astype(np.float16)
    assert np.array_equal(found[7], expected)


def test_an_engine_that_is_lost_ends_its_shard(modal, monkeypatch):
    async def lost(_server, _timeout):
        return EngineLostError("the device is lost")

    monkeypatch.setattr("actvec.server.server.Server.lost", lost)
    with pytest.raises(NoShardsError, match="the device is lost"):
        run_shards(["1/1"], modal.map("mean", name="bridges", options={}), attempts=1)


def test_what_is_there_is_not_computed_again_and_not_taken_for_something_else(modal):
    options = {"mode": "short", "format": "shards"}
    first = run_shards(["1/30"], modal.map("vectors", name="v", options=options))
    again = run_shards(["1/30"], modal.map("vectors", name="v", options=options))
    assert again[0]["worker_seconds"] == 0
    assert {**again[0], "worker_seconds": first[0]["worker_seconds"]} == first[0]
    with pytest.raises(NoShardsError, match="other vectors already"):
        run_shards(["1/30"], modal.map("vectors", name="v", options={"mode": "long"}), attempts=1)


@pytest.fixture
def coordinator(modal):
    """What runs on Modal beside the workers, and what people see of it."""
    seen = []
    figures = Figures(
        "demo", "L4", tokens_per_second=1000.0, price_per_hour=0.9, tokenizer=str(DEMO_TOKENIZER)
    )

    def compute(shards, arguments):
        rest = {name: value for name, value in arguments.items() if name != "kind"}
        return modal.map(arguments["kind"], **rest)(shards)

    def mean_id(name):
        made = modal.worker(modal.site()).get_activation_vector("a", center=name)
        return made["stamp"]["corpus_mean_id"]

    return Coordinator(modal.site(), compute, mean_id, figures, seen.append), seen


def test_a_mean_is_planned_computed_merged_and_priced(coordinator, whole):
    mean, seen = coordinator[0].mean("bridges.jsonl", "bridges", 2, {}), coordinator[1]
    assert (mean.documents, mean.tokens) == (59, int(whole["counts"].sum()))
    assert seen[0].startswith("plan: 60 documents, ")
    assert "2 x L4 at 1,000 tokens/s (given) and $0.90 an hour: 0:02:0" in seen[0]
    assert seen[1] == "plan: 1 documents are unreadable or blank, 0 over the context"
    assert seen[2].startswith("2 shards in 0:00:0")
    assert seen[3] == f"mean bridges ({mean.id}): 59 documents of {mean.tokens:,} tokens"
    assert seen[4].startswith("left out for INVALID_ARGUMENT: 1; the first is doc-5: ")
    assert seen[5].startswith("workers computed for 0:00:0")


def test_a_mean_that_is_there_is_not_computed_again(coordinator, modal):
    made = coordinator[0].mean("bridges.jsonl", "bridges", 1, {})
    with pytest.raises(RequestError, match=f"a mean of it already, {made.id}"):
        coordinator[0].mean("bridges.jsonl", "bridges", 1, {})
    assert modal.attempts.total() == 1


def test_vectors_are_planned_computed_and_priced(coordinator):
    options = {"mode": "long", "format": "shards", "truncation": "error"}
    made, seen = coordinator[0].vectors("bridges.jsonl", "long", 3, options), coordinator[1]
    assert sum(part["vectors"] for part in made) == 59
    assert "59 vectors in vectors/long of the volume; 1 documents failed" in seen


def test_all_shards_are_centred_by_the_mean_that_is_the_latest_when_they_begin(coordinator):
    mean = coordinator[0].mean("bridges.jsonl", "bridges", 2, {})
    options = {"mode": "short", "format": "shards"}
    made = coordinator[0].vectors("bridges.jsonl", "centred", 2, options, center="latest")
    assert [part["stamp"]["corpus_mean_id"] for part in made] == [mean.id, mean.id]


def test_there_are_no_more_shards_than_documents(coordinator, modal):
    (modal.root / "committed/corpora/two.jsonl").write_text('{"text": "One."}\n{"text": "Two."}')
    assert coordinator[0].mean("two.jsonl", "two", 9, {}).documents == 2
    assert sorted(modal.attempts) == ["1/2", "2/2"]


def test_a_plan_that_lacks_a_figure_says_which_and_starts_nothing(modal):
    unknown = Coordinator(modal.site(), pytest.fail, pytest.fail, Figures("demo", "TPU"))
    with pytest.raises(ProgramError, match="give --price-per-hour"):
        unknown.mean("bridges.jsonl", "bridges", 2, {})


def test_shards_that_fail_every_time_are_named_and_the_others_are_kept():
    tried = Counter()

    def run(shards):
        for shard in shards:
            tried[shard] += 1
            yield ProgramError("no memory") if shard == "2/3" else {"shard": shard}

    with pytest.raises(NoShardsError, match=r"1 of 3 shards failed 2 times.*2/3: no memory"):
        run_shards(shards_of(3), run, attempts=2)
    assert tried == {"1/3": 1, "2/3": 2, "3/3": 1}


@pytest.mark.parametrize("name", ["nothing.jsonl", "../means", "/etc/passwd"])
def test_a_corpus_that_is_not_there_is_said_with_those_that_are(modal, name):
    with pytest.raises(RequestError, match=r"but: bridges\.jsonl"):
        modal.site().corpus(name)


def test_a_folder_is_a_corpus_too(modal):
    folder = modal.root / "committed" / "corpora" / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("A text.")
    assert (modal.site().corpus("texts") / "a.txt").read_text() == "A text."


@pytest.mark.parametrize("count", [0, -1])
def test_no_shard_at_all_is_refused(count):
    with pytest.raises(RequestError, match="1 or more"):
        shards_of(count)


def test_a_name_is_no_path(modal):
    with pytest.raises(NoShardsError, match="letters, digits"):
        run_shards(["1/1"], modal.map("mean", name="../up", options={}), attempts=1)


async def test_a_program_that_fails_says_so_in_its_own_words(tmp_path):
    command = actvec_command("stream", str(tmp_path / "gone"), mode="short", out=tmp_path / "o")
    with pytest.raises(ProgramError, match=r"cannot read .*gone"):
        await run_json([*command, "--json"], {})


async def test_a_program_ends_with_whoever_waits_for_it():
    waiting = asyncio.create_task(run_json(["sleep", "60"], {}))
    while not psutil.Process().children():  # noqa: ASYNC110 - a process, which sets no event
        await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not [c for c in psutil.Process().children() if c.name() == "sleep"]


def test_options_become_flags():
    command = actvec_command("mean", "compute", "x", name="n", variance=True, bos=False, job=None)
    assert command[3:] == ["mean", "compute", "x", "--name", "n", "--variance"]
    assert shutil.which(command[0])
