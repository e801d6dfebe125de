"""Shards whose folders are in a store: whole or not at all, resumed, and merged from there."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from numpy.testing import assert_allclose
from safetensors.numpy import load, load_file

from actvec.client import Client
from actvec.client import load as load_vectors
from actvec.client.errors import Aborted, ActvecError, FailedPrecondition, InvalidArgument, NotFound
from tests.shards.running import TEXTS, run

pytestmark = pytest.mark.usefixtures("loaded_once")

STORE = "memory://shards"


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """An empty store in memory; local copies are in a folder of the test's own."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copies"))
    return fsspec.filesystem("memory")


@pytest.fixture
def cut(monkeypatch):
    """Let uploads fail from the n-th on, each file whole or not at all."""

    def cut(number):
        left = number

        def upload(self, lpath, rpath, **_):
            nonlocal left
            left -= 1
            if left <= 0:
                raise ConnectionError("the cable was cut")
            self.pipe_file(rpath, Path(lpath).read_bytes())

        monkeypatch.setattr(MemoryFileSystem, "put_file", upload)

    return cut


def downloaded(store, folder, target):
    store.get(f"{folder}/", f"{target}/", recursive=True)
    return target


def test_vectors_of_shards_are_one_corpus(corpus, store, tmp_path):
    asked = ("vectors", corpus, "--mode", "short", "--format", "parquet")
    for shard in ("1/3", "2/3", "3/3"):
        run(*asked, "--out", f"{STORE}/vectors/", "--shard", shard)
    assert not store.exists("/shards/vectors/1-of-3/owner.json")
    before = store.modified("/shards/vectors/1-of-3/manifest.json")
    again = run(*asked, "--out", f"{STORE}/vectors", "--shard", "1/3")
    assert f"vectors in {STORE}/vectors/1-of-3; " in again.output
    assert store.modified("/shards/vectors/1-of-3/manifest.json") == before
    run(*asked, "--out", "here")
    far, here = (
        load_vectors(downloaded(store, "/shards/vectors", tmp_path / "copy")),
        load_vectors("here"),
    )
    assert sorted(far.ids) == sorted(here.ids)
    for document in here.ids:
        assert np.array_equal(far.array[far.place(document)], here.array[here.place(document)])


def test_cut_vectors_resume(corpus, store, cut):
    asked = ("vectors", corpus, "--mode", "short", "--out", f"{STORE}/vectors")
    for number in (1, 2, 3, 4):
        cut(number)
        with pytest.raises(
            OSError, match=f"{STORE}/vectors/1-of-1 cannot be .*: the cable was cut"
        ):
            run(*asked)
    cut(1000)
    assert "29 vectors in" in run(*asked).output
    assert json.loads(store.cat("/shards/vectors/1-of-1/manifest.json"))["finished_at"]


def test_cut_mean_counts_documents_once(corpus, store, cut):
    asked = ("mean", corpus, "--name", "c", "--out", f"{STORE}/mean")
    merge = ("merge", f"{STORE}/mean", "--name", "c", "--to")
    run(*asked, "--shard", "1/2")
    # The last of these runs come to the mean, its record, and the note that it is finished.
    for number in (1, 2, 3, 9, 7, 2, 2, 1):
        cut(number)
        with pytest.raises(OSError, match=f"{STORE}/mean/2-of-2 cannot be .*: the cable was cut"):
            run(*asked, "--shard", "2/2")
        with pytest.raises(FailedPrecondition, match=r"has no shard 2/2|2-of-2 is not done"):
            run(*merge, "m")
    cut(1000)
    assert "14 documents of" in run(*asked, "--shard", "2/2").output
    made = sorted(one.rpartition("2-of-2/")[2] for one in store.find("/shards/mean/2-of-2"))
    assert [name.partition("/")[0] for name in made] == [
        "jobs",
        "jobs",
        "means",
        "means",
        "record.json",
    ]

    cut(1)
    assert "14 documents of" in run(*asked, "--shard", "2/2").output
    with pytest.raises(OSError, match=f"{STORE}/merged.safetensors cannot be read or written to"):
        run(*merge, f"{STORE}/merged.safetensors")
    assert not store.exists("/shards/merged.safetensors")
    cut(1000)
    assert "29 documents of" in run(*merge, f"{STORE}/merged.safetensors").output

    run("mean", corpus, "--name", "c", "--out", "here")
    run("merge", "here", "--name", "c", "--to", "here.safetensors")
    far, here = load(store.cat("/shards/merged.safetensors")), load_file("here.safetensors")
    assert_allclose(far["sums"], here["sums"], rtol=1e-12, atol=1e-12)
    assert np.array_equal(far["counts"], here["counts"])
    run(
        *("vectors", corpus, "--mode", "short", "--out", f"{STORE}/centered"),
        *("--center", f"{STORE}/merged.safetensors"),
    )
    manifest = json.loads(store.cat("/shards/centered/1-of-1/manifest.json"))
    assert manifest["stamp"]["corpus_mean_sha256"]


def test_altered_sums_are_refused(corpus, store):
    run("mean", corpus, "--name", "c", "--out", f"{STORE}/mean")
    [path] = store.glob("/shards/mean/1-of-1/means/*.safetensors")
    store.pipe_file(path, b"altered")
    with pytest.raises(ActvecError, match="not what was stored: its SHA-256 differs"):
        run("merge", f"{STORE}/mean", "--name", "c", "--to", "m")


def test_second_process_is_refused(corpus, store):
    owner = {"token": "t", "host": "far", "copy": "elsewhere", "pid": 7, "since": "today"}
    store.pipe_file("/shards/mean/1-of-1/owner.json", json.dumps(owner).encode())
    with pytest.raises(Aborted, match=f"is writing to {STORE}/mean/1-of-1: pid 7 on far"):
        run("mean", corpus, "--name", "c", "--out", f"{STORE}/mean")


def test_unfit_urls_are_refused(corpus):
    with pytest.raises(InvalidArgument, match="takes shards or parquet"):
        run("vectors", corpus, "--mode", "short", "--format", "files", "--out", STORE)
    with pytest.raises(InvalidArgument, match="cannot use ftp://a/b"):
        run("merge", "ftp://a/b", "--name", "c", "--to", "m")
    with pytest.raises(NotFound, match=f"there is no {STORE}/absent"):
        run(*("vectors", corpus, "--mode", "short", "--out", "v"), "--center", f"{STORE}/absent")


# `actvec local`, which kills itself with SIGKILL before its n-th upload to S3.
PROGRAM = """
import os, signal, sys
import s3fs
from actvec.shards import places

places._COMMIT_SECONDS = 0.0
left = int(sys.argv[1])
upload = s3fs.S3FileSystem._put_file

async def killing(*arguments, **named):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    await upload(*arguments, **named)

s3fs.S3FileSystem._put_file = killing
from actvec.shards.command import local
local(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_task_counts_for_nothing(corpus, s3, demo_server):
    """The model is loaded for each run, as a batch system loads it."""
    url = f"s3://{s3.bucket}/out"
    tasks = {
        "mean": ("mean", str(corpus), "--name", "c", "--out", f"{url}/mean"),
        "vectors": ("vectors", str(corpus), "--mode", "short", "--out", f"{url}/vectors"),
    }
    files = fsspec.filesystem("s3")
    for number, (kind, task) in zip((3, 4), tasks.items(), strict=True):
        killed = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(number), *task],
            env=os.environ | {"TMPDIR": tempfile.gettempdir()},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        files.invalidate_cache()
        assert files.exists(f"{url}/{kind}/1-of-1/owner.json")
        made = run(*task)
        assert "29 " in made.output
    assert "29 documents" in run("merge", f"{url}/mean", "--name", "c", "--to", "m").output
    vectors = load_vectors(downloaded(files, f"{s3.bucket}/out/vectors", Path("copy")))
    with Client(demo_server.target) as client:
        expected = client.vectors([TEXTS[index] for index in vectors.facts["index"]], mode="short")
    assert np.array_equal(vectors.array, expected.array.astype(np.float16))
