"""Folders of jobs, and jobs whose folder is in an S3 server: each document once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from actvec.client import (
    Client,
    Document,
    FailedPrecondition,
    Failure,
    InvalidArgument,
    load,
)
from actvec.client.errors import DataLoss, StampChanged
from actvec.ray.documents import SOURCE_COLUMNS, unreadable
from actvec.ray.folders import DOCUMENTS, RESULTS, VECTORS, Tables, open_job
from actvec.ray.steps import FileVectors
from tests.ray.conftest import TEXTS
from tests.ray.test_jobs import same_mean

# A driver of files of eight documents. A worker kills it, or itself, with its third file written.
DRIVER = """
import contextlib, json, os, signal, sys, time, ray
from pathlib import Path
from actvec.client.documents import Columns, open_documents
from actvec.ray import documents, jobs, means, write_mean, write_vectors

address, corpus, out, kind, victim = sys.argv[1:]
driver, mark = os.getpid(), Path(corpus).with_name(f"{kind}-{victim}")

def dying(step):
    class Dying(step):
        files = 0

        def __call__(self, batch):
            made = super().__call__(batch)
            self.files += 1
            if self.files == 3:
                with contextlib.suppress(FileExistsError):
                    mark.touch(exist_ok=False)
                    os.kill(driver if victim == "driver" else os.getpid(), signal.SIGKILL)
                    # Ray ends the workers of a driver that is gone.
                    time.sleep(600)
            return made

    return Dying

if victim:
    jobs.FileVectors, jobs.FileSums = dying(jobs.FileVectors), dying(jobs.FileSums)
documents._ROWS, means._PART_FILES = 8, 1
variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": variables})
source = open_documents(corpus, columns=Columns(keep=("label",)))
options = {"workers": 1 if victim == "driver" else 2, "device": "cpu"}
if kind == "vectors":
    made = write_vectors(source, out, mode="short", **options)
    # Ray writes to the output too.
    Path(corpus).with_name("made.json").write_text(json.dumps(vars(made)))
else:
    write_mean(source, out, name="bridges", **options)
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store in memory."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("actvec.ray.documents._ROWS", 80)
    return fsspec.filesystem("memory")


@pytest.fixture(params=["disk", "store"])
def place(request, tmp_path):
    """The folder of a job, of either kind."""
    request.getfixturevalue("store")
    return str(tmp_path / "job") if request.param == "disk" else "memory://jobs/one"


def rows_of(names):
    return pa.table({"files": [[name] for name in names]})


def step_of(place, stamp=None, **options):
    return FileVectors(place=place, stamp=stamp, device="cpu", **options, **SOURCE_COLUMNS)


@pytest.mark.parametrize("cut_off", [VECTORS, RESULTS])
def test_cut_job_resumes(corpus, place, monkeypatch, cut_off):
    """A file of vectors counts, and its results alone do not; no cluster is needed for that.

    So whichever of the two was not written, both are written again.
    """
    options = {"mode": "short"}
    step = step_of(place, **options)
    with open_job(corpus, place, options) as job:
        assert len(job.files) == 3
        assert job.left(VECTORS) == job.files
        step(rows_of(job.files[:1]))
        write = Tables.write

        def cut(self, name, table):
            if name.startswith(f"{cut_off}/"):
                raise ConnectionError("the cable was cut")
            write(self, name, table)

        with monkeypatch.context() as patched, pytest.raises(ConnectionError):
            patched.setattr(Tables, "write", cut)
            step(rows_of(job.files[1:2]))
    with (
        pytest.raises(FailedPrecondition, match=rf"{place} holds a job of other settings"),
        open_job(corpus, place, options | {"mode": "long"}),
    ):
        pass
    with open_job(corpus, place, options) as job:
        assert job.left(VECTORS) == job.files[1:]
        step(rows_of(job.left(VECTORS)))
        results = pa.concat_tables(job.tables(RESULTS, job.files))
        assert results["index"].to_pylist() == list(range(200))
        assert results.filter(results["error"].is_valid())["index"].to_pylist() == [5]
        made = pa.concat_tables(job.tables(VECTORS, job.files))
        assert made.drop_columns(["vector"]).equals(results)
        job.finish(0, [])


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("results/part-000001.parquet", "remove vectors/part-000001.parquet too"),
        ("documents/part-000001.parquet", "begin again in another folder"),
    ],
)
def test_damaged_file_is_named(corpus, place, name, what):
    with open_job(corpus, place, {}) as job:
        step_of(place, mode="short")(rows_of(job.files))
    with fsspec.open(f"{place}/{name}", "wb") as file:
        file.write(b"PAR1 cut short")
    with open_job(corpus, place, {}) as job:
        told = pytest.raises(DataLoss, match=rf"{place}/{name} cannot be read: .*{what}")
        with told:
            list(job.tables(name.partition("/")[0], job.files))
        files, path = fsspec.core.url_to_fs(f"{place}/{name}")
        files.rm(path)
        with told:
            list(job.tables(name.partition("/")[0], job.files))


@pytest.mark.parametrize("name", ["job.json", "unreadable.jsonl"])
def test_damaged_record_is_named(corpus, place, name):
    with open_job(corpus, place, {}):
        pass
    with fsspec.open(f"{place}/{name}", "wb") as file:
        file.write(b"{")
    with (
        pytest.raises(DataLoss, match=rf"{name} or a file beside it cannot be read"),
        open_job(corpus, place, {}) as job,
    ):
        unreadable(job.copy)


def test_missing_documents_are_named(corpus, place):
    """The last file would not be missed by its number."""
    with open_job(corpus, place, {}) as job:
        last = job.files[-1]
    files, path = fsspec.core.url_to_fs(f"{place}/documents/{last}")
    files.copy(path, path.replace("000002", "000003"))
    told = pytest.raises(DataLoss, match=r"documents/part-000003\.parquet does not belong there")
    with told, open_job(corpus, place, {}):
        pass
    files.rm(path.replace("000002", "000003"))
    files.rm(path)
    told = pytest.raises(DataLoss, match=rf"{place}/documents/{last} is missing")
    with told, open_job(corpus, place, {}):
        pass


def test_job_of_an_earlier_layout_is_refused(corpus, place):
    """Its vectors have no results beside them."""
    with open_job(corpus, place, {}):
        pass
    with fsspec.open(f"{place}/job.json") as file:
        record = json.load(file)
    for name in ("layout", "files"):
        del record[name]
    with fsspec.open(f"{place}/job.json", "w") as file:
        json.dump(record, file)
    told = pytest.raises(FailedPrecondition, match=rf"{place} holds a job of another version")
    with told, open_job(corpus, place, {}):
        pass


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "part-000002.parquet").unlink(), "holds 159 vectors, and .* 199"),
        (
            lambda folder: shutil.copy(folder / "part-000002.parquet", folder / "again.parquet"),
            r"document 160 \('doc-160'\) is in \S+ twice",
        ),
    ],
    ids=["missing", "twice"],
)
@pytest.mark.usefixtures("store")
def test_lost_vectors_are_not_passed_over(corpus, tmp_path, spoil, told):
    place = tmp_path / "job"
    with open_job(corpus, place, {}) as job:
        step_of(str(place), mode="short")(rows_of(job.files))
        job.finish(199, [])
    assert len(load(place / "vectors")) == 199
    spoil(place / "vectors")
    with pytest.raises(DataLoss, match=told):
        load(place / "vectors")


def test_finished_store_has_the_record_of_its_last_run_alone(corpus, store):
    failure = Failure("a", "UNAVAILABLE", "the disk is gone", index=3)
    for vectors, failures in ((198, [failure]), (199, [])):
        with open_job(corpus, "memory://jobs/one", {}) as job:
            job.finish(vectors, failures)
        assert json.loads(store.cat_file("/jobs/one/job.json"))["vectors"] == vectors
        assert store.exists("/jobs/one/errors.jsonl") == bool(failures)
        assert not store.exists("/jobs/one/owner.json")


def test_other_vectors_are_refused(corpus, place):
    """Of another model in the same place, for example, or another mean."""
    step = step_of(place, mode="short")
    with open_job(corpus, place, {}) as job:
        step(rows_of(job.files[:1]))
        other = step_of(place, stamp=step._make.stamp.to_dict(), mode="short", layers=[1])
        with pytest.raises(StampChanged, match=rf"in {place}: .*layers is .* there and"):
            other(rows_of(job.files[1:2]))
    with open_job(corpus, place, {}) as job:
        assert job.left(VECTORS) == job.files[1:]


def test_documents_are_kept_whole(corpus, store, monkeypatch):
    """Until the last file of documents is there, a job starts again."""
    url = "memory://jobs/two"
    upload = MemoryFileSystem.put_file

    def cut(self, lpath, rpath, **named):
        if rpath.endswith("000002.parquet"):
            raise ConnectionError("the cable was cut")
        upload(self, lpath, rpath, **named)

    with monkeypatch.context() as patched, pytest.raises(OSError, match=f"{url} .*was cut"):
        patched.setattr(MemoryFileSystem, "put_file", cut)
        with open_job(corpus, url, {}):
            pass
    with open_job(corpus, url, {}) as job:
        assert len(job.files) == 3
        assert sum(len(table) for table in job.tables(DOCUMENTS, job.files)) == 200
        job.remove()
    assert not store.find("/jobs/two")


@pytest.fixture
def run(cluster, corpus, s3, tmp_path, monkeypatch):
    """Run a driver that writes vectors or a mean to the bucket."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run(name, kind, victim=""):
        address = cluster.get_runtime_context().gcs_address
        out = f"s3://{s3.bucket}/{name}"
        ended = subprocess.run(
            [sys.executable, "-c", DRIVER, address, str(corpus.path), out, kind, victim],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        expected = -signal.SIGKILL if victim == "driver" else 0
        assert ended.returncode == expected, ended.stderr
        assert not victim or (tmp_path / f"{kind}-{victim}").exists()

    return run


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_vectors_resume(run, s3, demo_server, tmp_path):
    files = fsspec.filesystem("s3")
    run("out", "vectors", "driver")
    assert len(files.glob(f"{s3.bucket}/out/vectors/*.parquet")) == 3
    run("out", "vectors", "worker")
    assert json.loads((tmp_path / "made.json").read_text()) == {
        "vectors": 199,
        "failed": 2,
        "computed": 200 - 24,
    }
    files.invalidate_cache()
    tables = []
    for path in files.glob(f"{s3.bucket}/out/vectors/*.parquet"):
        with files.open(path) as file:
            tables.append(pq.read_table(file))
    rows = [row for table in tables for row in table.to_pylist()]
    assert sorted(row["index"] for row in rows) == list(range(200))
    assert {row["index"]: row["label"] for row in rows} == {i: i % 7 for i in range(200)}
    vectors = {row["index"]: row["vector"] for row in rows}
    with Client(demo_server.target) as client:
        expected = client.extract(TEXTS[77], mode="short").values
    assert np.array_equal(np.float32(vectors[77]), expected)
    listed = files.cat(f"{s3.bucket}/out/errors.jsonl").decode().splitlines()
    assert {json.loads(line)["index"] for line in listed} == {5, 200}
    assert not files.exists(f"{s3.bucket}/out/owner.json")
    run("out", "vectors")
    assert json.loads((tmp_path / "made.json").read_text())["computed"] == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_mean_resumes(run, s3, demo_server, tmp_path):
    files = fsspec.filesystem("s3")
    run("mean.safetensors", "mean", "driver")
    assert len(files.glob(f"{s3.bucket}/.mean.safetensors.parts/sums/*.parquet")) == 3
    assert not files.exists(f"{s3.bucket}/mean.safetensors")
    run("mean.safetensors", "mean", "worker")
    files.invalidate_cache()
    assert files.find(s3.bucket) == [f"{s3.bucket}/mean.safetensors"]
    path = tmp_path / "mean.safetensors"
    path.write_bytes(files.cat(f"{s3.bucket}/mean.safetensors"))
    documents = [Document(str(i), text) for i, text in enumerate(TEXTS) if i != 5]
    same_mean(path, None, demo_server, documents, "ray-store")


def test_hub_is_refused(corpus):
    refused = pytest.raises(InvalidArgument, match="each file of each worker would be a commit")
    with refused, open_job(corpus, "hf://datasets/me/vectors/one", {}):
        pass
