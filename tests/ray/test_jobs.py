"""Jobs on a cluster of this machine: each document once, whichever process is killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.testing import assert_allclose
from safetensors.numpy import load

from actvec.client import Client, Document, FailedPrecondition
from actvec.ray import PartialMeans, corpus_mean, jobs, means, write_mean, write_vectors
from actvec.ray.command import ray as ray_command
from actvec.ray.means import merge_parts
from actvec.ray.steps import FileVectors
from tests.ray.conftest import TEXTS

OPTIONS = {"mode": "short", "device": "cpu"}

# A cluster takes seconds to start, and a worker's death longer to notice.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("cluster"),
]


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """Each file has eight of the 201 documents, and each part of a mean one file."""
    monkeypatch.setattr("actvec.ray.documents._ROWS", 8)
    monkeypatch.setattr("actvec.ray.means._PART_FILES", 1)


def written(folder):
    return pq.read_table(folder / "vectors") if list(folder.glob("vectors/*.parquet")) else []


def check(folder, server):
    """Check that every document appears once, with its vector and label."""
    table = written(folder)
    assert sorted(table["index"].to_pylist()) == list(range(200))
    vectors = dict(zip(table["index"].to_pylist(), table["vector"].to_pylist(), strict=True))
    assert [index for index, vector in vectors.items() if vector is None] == [5]
    with Client(server.target) as client:
        expected = client.extract(TEXTS[77], mode="short").values
    assert np.array_equal(np.float32(vectors[77]), expected)
    assert dict(zip(table["index"].to_pylist(), table["label"].to_pylist(), strict=True)) == {
        index: index % 7 for index in range(200)
    }
    failures = [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]
    assert {one["index"]: one.get("columns") for one in failures} == {5: {"label": 5}, 200: None}


def dying_once(kind, mark):
    """A worker that is killed with its third batch made and not given away yet.

    Only the first worker of all that comes so far, which leaves a mark.
    """

    class Dying(kind):
        calls = 0

        def __call__(self, batch):
            made = super().__call__(batch)
            self.calls += 1
            if self.calls == 3:
                with contextlib.suppress(FileExistsError):
                    mark.touch(exist_ok=False)
                    os.kill(os.getpid(), signal.SIGKILL)
            return made

    return Dying


def test_killed_worker_loses_nothing(corpus, tmp_path, demo_server, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "FileVectors", dying_once(FileVectors, tmp_path / "killed"))
        made = write_vectors(corpus, out, workers=2, **OPTIONS)
    assert (tmp_path / "killed").exists()
    assert (made.vectors, made.failed, made.computed) == (199, 2, 200)
    check(out, demo_server)
    again = write_vectors(corpus, out, workers=2, **OPTIONS)
    assert (again.vectors, again.failed, again.computed) == (199, 2, 0)
    with pytest.raises(FailedPrecondition, match="other settings or another input"):
        write_vectors(corpus, out, workers=2, **OPTIONS | {"mode": "long"})


# A driver whose worker never gives its fifth batch away: it runs until it is killed.
HELD = """
import sys, time, ray
from actvec.client.documents import Columns, open_documents
from actvec.ray import documents, jobs, means, write_mean, write_vectors

def held(kind):
    class Held(kind):
        calls = 0

        def __call__(self, batch):
            self.calls += 1
            while self.calls == 5:
                time.sleep(0.1)
            return super().__call__(batch)

    return Held

ray.init(address=sys.argv[1], log_to_driver=False)
documents._ROWS, means._PART_FILES = 8, 1
source = open_documents(sys.argv[2], columns=Columns(keep=("label",)))
"""


def kill_driver(cluster, program, corpus, out, due):
    """Run a driver, and kill it once it is due."""
    address = cluster.get_runtime_context().gcs_address
    command = [sys.executable, "-c", HELD + program, address, str(corpus.path), str(out)]
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not due():
        assert driver.poll() is None
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()


DRIVER = """
jobs.FileVectors = held(jobs.FileVectors)
write_vectors(source, sys.argv[3], workers=1, mode="short", device="cpu")
"""


def test_killed_driver_resumes(cluster, corpus, tmp_path, demo_server):
    out = tmp_path / "out"
    kill_driver(cluster, DRIVER, corpus, out, lambda: any(out.glob("vectors/*.parquet")))
    before = {path.name: path.read_bytes() for path in out.glob("vectors/*.parquet")}
    made = write_vectors(corpus, out, workers=2, **OPTIONS)
    assert 0 < made.computed < 200
    check(out, demo_server)
    after = {path.name: path.read_bytes() for path in out.glob("vectors/*.parquet")}
    # Files that were whole have not changed.
    assert {name: after[name] for name in before} == before


def same_mean(path, made, demo_server, documents, job):
    """The file of a mean equals that of a server, and so does its record."""
    with Client(demo_server.target) as client:
        theirs = client.corpus_mean(documents, job=job)
        expected = load(client.download_mean(theirs.id).content)
    ours = load(path.read_bytes())
    if made is not None:
        assert (made.documents, made.tokens) == (theirs.documents, theirs.tokens)
    assert np.array_equal(ours["counts"], expected["counts"])
    assert_allclose(ours["sums"], expected["sums"], rtol=1e-12, atol=1e-12)


def test_killed_worker_counts_documents_once(cluster, tmp_path, demo_server, monkeypatch):
    documents = [Document(str(i), text) for i, text in enumerate(TEXTS)]
    dataset = cluster.data.from_items(
        [{"id": one.id, "text": one.text} for one in documents], override_num_blocks=20
    )
    monkeypatch.setattr(means, "PartialMeans", dying_once(PartialMeans, tmp_path / "killed"))
    made = corpus_mean(
        dataset,
        tmp_path / "mean.safetensors",
        name="bridges",
        part_documents=10,
        map_options={"compute": cluster.data.ActorPoolStrategy(size=2)},
        device="cpu",
    )
    assert (tmp_path / "killed").exists()
    same_mean(tmp_path / "mean.safetensors", made, demo_server, documents, "ray-cluster")


MEAN_DRIVER = """
jobs.FileSums = held(jobs.FileSums)
write_mean(source, sys.argv[3], name="bridges", device="cpu")
"""


def made_at(sums):
    """When each part of a mean was written."""
    return {path.name: path.stat().st_mtime_ns for path in sums.glob("part-??????.parquet")}


def test_killed_mean_resumes(cluster, corpus, tmp_path, demo_server):
    out = tmp_path / "mean.safetensors"
    sums = tmp_path / ".mean.safetensors.parts" / "sums"
    kill_driver(cluster, MEAN_DRIVER, corpus, out, lambda: made_at(sums))
    before = made_at(sums)
    # Of 201 lines, eight each.
    assert len(before) < 26
    with pytest.raises(FailedPrecondition, match="other settings or another input"):
        write_mean(corpus, out, name="another", device="cpu")
    seen = {}

    def rows(parts, *rest):
        seen.update(made_at(sums))
        return merge_parts(parts, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "merge_parts", rows)
        made = write_mean(corpus, out, name="bridges", workers=2, device="cpu")
    # Parts that were there are not summed again.
    assert len(seen) == 26
    assert {name: seen[name] for name in before} == before
    assert [one.documents for one in made.skipped] == [2]
    documents = [Document(str(i), text) for i, text in enumerate(TEXTS) if i != 5]
    same_mean(out, made, demo_server, documents, "ray-resumed")
    assert not sums.parent.exists()


def test_too_few_cpus_are_refused(corpus, tmp_path):
    with pytest.raises(FailedPrecondition, match=r"7 workers need 7 CPUs.*declares 6"):
        write_vectors(corpus, tmp_path / "out", workers=7, **OPTIONS)


def run(*arguments):
    return CliRunner().invoke(ray_command, [str(one) for one in arguments])


def test_command_writes_a_mean(corpus, tmp_path):
    mean = tmp_path / "mean.safetensors"
    made = run("mean", corpus.path, "--name", "c", "--out", mean)
    assert (made.exit_code, "199 documents of" in made.output) == (1, True), made.output
    assert "skipped for INVALID_ARGUMENT: 2" in made.output
    assert load(mean.read_bytes())["counts"][0] == 199
    # Nothing of its documents remains.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", mean.name]


def test_command_writes_centered_vectors(corpus, tmp_path, demo_server):
    mean, out = tmp_path / "mean.safetensors", tmp_path / "out"
    with Client(demo_server.target) as client:
        made = client.corpus_mean(TEXTS, job="ray-command")
        mean.write_bytes(client.download_mean(made.id).content)
        expected = client.extract(TEXTS[77], mode="long", center=made.id, truncation="start")
    asked = [
        "vectors",
        corpus.path,
        "--mode",
        "long",
        "--out",
        out,
        "--center",
        mean,
        "--keep",
        "label",
        "--truncation",
        "start",
    ]
    made = run(*asked)
    assert (made.exit_code, "199 vectors in" in made.output) == (1, True), made.output
    rows = {row["index"]: row["vector"] for row in written(out).to_pylist()}
    assert np.array_equal(np.float32(rows[77]), expected.values)
    assert json.loads(written(out).schema.metadata[b"actvec.stamp"]) == expected.stamp.to_dict()
    assert {row["index"]: row["label"] for row in written(out).to_pylist()}[77] == 0
    assert "column 'error' cannot be kept" in str(run(*asked, "--keep", "error").exception)
    other = run(*asked, "--layers", "2")
    assert "other settings" in str(other.exception)
    assert "not a list of block numbers" in run(*asked, "--layers", "all").output
