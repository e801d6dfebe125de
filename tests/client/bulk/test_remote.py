"""Jobs whose folder is in an object store: servers of S3 and Google storage, fsspec's memory."""

import json
import re
import signal
import sys
import tempfile
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from gcp_storage_emulator.server import create_server

from actvec.client import AsyncClient, Client
from actvec.client.bulk import Layout, VectorJob
from actvec.client.documents import open_documents
from actvec.client.errors import (
    Aborted,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    MissingExtra,
)
from tests.client.bulk.jobs import StopHereError, job, manifest_of, stop_after, write_corpus
from tests.client.processes import run_forked

pytestmark = pytest.mark.usefixtures("copies")

LAYOUTS = ("shards", "parquet")

# `actvec`, which kills itself with SIGKILL before or after its n-th upload.
PROGRAM = """
import os, signal, sys
import s3fs

left, late = int(sys.argv[1]), sys.argv[2] == "late"
upload = s3fs.S3FileSystem._put_file

async def killing(*arguments, **named):
    global left
    left -= 1
    if left == 0 and not late:
        os.kill(os.getpid(), signal.SIGKILL)
    await upload(*arguments, **named)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

s3fs.S3FileSystem._put_file = killing
from actvec.client.cli import main
main(sys.argv[3:])
"""


@pytest.fixture
def store():
    """A URL in memory."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return "memory://vectors/one"


@pytest.fixture
def gs(monkeypatch):
    """The bucket of a running server of Google Cloud Storage."""
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    host, port = server._api._httpd.server_address
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
    yield "gs://bucket"
    server.stop()
    fsspec.get_filesystem_class("gs").clear_instance_cache()


def downloaded(url, folder):
    """A copy of a remote folder, to read."""
    store, root = fsspec.core.url_to_fs(url)
    store.invalidate_cache()
    for path in store.find(root):
        target = folder / path[len(root) :].lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.cat_file(path))
    return folder


@pytest.fixture
def check_remote(tmp_path, check_complete):
    """Check a remote folder: each document once; return a copy of it."""

    def check(url, layout="shards"):
        folder = downloaded(url, tmp_path / "remote" / url.rpartition("/")[2])
        check_complete(folder, layout)
        assert not (folder / "owner.json").exists()
        return folder

    return check


def write(url, name, data):
    store, root = fsspec.core.url_to_fs(url)
    store.pipe_file(f"{root}/{name}", data)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_remote_folder_equals_a_local_one(demo_server, corpus, store, check_remote, layout):
    here = corpus.parent / "local"
    with Client(demo_server.target) as client:
        job(corpus, here, layout, ordered=True).run(client)
        remote = job(corpus, store, layout, ordered=True, save_every=0.0)
        assert remote.run(client).durable == remote.progress.vectors
    folder = check_remote(store, layout)
    for path in (here).rglob("*"):
        if path.is_file() and path.name not in (".lock", "manifest.json", "checksums.jsonl"):
            assert (folder / path.relative_to(here)).read_bytes() == path.read_bytes()
    assert remote.center is None
    assert remote.errors.exists()
    assert not list(remote.folder.rglob("vectors-*"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_interrupted_job_resumes_anywhere(demo_server, corpus, store, check_remote, layout):
    with Client(demo_server.target) as client:
        with pytest.raises(StopHereError):
            job(corpus, store, layout).run(client, on_progress=stop_after(30))
        with pytest.MonkeyPatch.context() as elsewhere:
            elsewhere.setattr(tempfile, "tempdir", str(corpus.parent))
            progress = job(corpus, store, layout, resume=True).run(client)
    assert progress.resumed_vectors + progress.resumed_failed >= 30
    check_remote(store, layout)


def test_google_storage_takes_a_job(demo_server, corpus, gs, check_remote):
    url = f"{gs}/deep/vectors"
    with Client(demo_server.target) as client:
        with pytest.raises(StopHereError):
            job(corpus, url).run(client, on_progress=stop_after(30))
        owner = {"token": "t", "host": "far", "copy": "elsewhere", "pid": 7, "since": "today"}
        write(url, "owner.json", json.dumps(owner).encode())
        with pytest.raises(Aborted, match="pid 7 on far, since today"):
            job(corpus, url, resume=True).run(client)
        fsspec.filesystem("gs").rm_file("bucket/deep/vectors/owner.json")
        progress = job(corpus, url, resume=True, save_every=0.1).run(client)
        assert progress.resumed_vectors + progress.resumed_failed >= 30
        check_remote(url)
        write(url, "vectors-00001.safetensors", b"altered")
        with pytest.raises(DataLoss, match=f"^{url}/vectors-00001.safetensors has 7 bytes"):
            job(corpus, url, resume=True).run(client)


async def test_event_loop_writes_remotely(demo_server, corpus, store, check_remote):
    async with AsyncClient(demo_server.target) as client:
        await job(corpus, store).run_async(client)
    check_remote(store)


def test_killed_upload_ends_as_if_undisturbed(demo_server, corpus, s3, check_remote):
    url = f"s3://{s3.bucket}/deep/vectors"
    arguments = [
        *("stream", str(corpus), "--out", url, "--resume", "--json", "--mode", "short"),
        *("--format", "shards", "--rows-per-file", "16", "--save-every", "0.001"),
        *("--target", demo_server.target),
    ]

    def run(uploads, moment):
        return run_forked(
            *(PROGRAM, uploads, moment, *arguments),
            log=corpus.with_suffix(".log"),
            TMPDIR=tempfile.gettempdir(),
        )

    for uploads, moment in ((4, "late"), (6, "early"), (9, "late")):
        killed = run(uploads, moment)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    last = run(0, "never")
    assert last.returncode == 1, last.stderr
    told = json.loads(last.stdout)
    assert told["resumed"] > 0
    assert told["out"] == url
    assert told["errors"] == f"{url}/errors.jsonl"
    folder = check_remote(url)
    assert manifest_of(folder)["finished_at"]


def test_second_machine_is_refused(demo_server, corpus, store, check_remote):
    owner = {"token": "t", "host": "far", "copy": "elsewhere", "pid": 7, "since": "today"}
    write(store, "owner.json", json.dumps(owner).encode())
    with Client(demo_server.target) as client:
        with pytest.raises(Aborted, match=r"pid 7 on far, since today.*memory://\S+/owner.json"):
            job(corpus, store, resume=True).run(client)
        fsspec.filesystem("memory").rm_file("/vectors/one/owner.json")
        job(corpus, store, resume=True).run(client)
    check_remote(store)


def test_second_job_here_is_refused(demo_server, corpus, store):
    with Client(demo_server.target) as client:

        def begin_another(_):
            with pytest.raises(Aborted, match=f"is writing to {store}"):
                job(corpus, store, resume=True).run(client)
            raise StopHereError

        with pytest.raises(StopHereError):
            job(corpus, store).run(client, on_progress=begin_another)


def test_linked_copy_is_not_emptied(demo_server, corpus, store, tmp_path):
    """Anybody may leave a link among the temporary files, and its name is no secret."""
    papers = tmp_path / "papers"
    papers.mkdir()
    (papers / "thesis.tex").write_text("A thesis.")
    linked = job(corpus, store)
    linked.folder.symlink_to(papers)
    with Client(demo_server.target) as client, pytest.raises(PermissionError, match="is a link"):
        linked.run(client)
    assert (papers / "thesis.tex").read_text() == "A thesis."


def test_replaced_owner_stops(demo_server, corpus, store):
    def replace_owner(_):
        write(store, "owner.json", b'{"token": "another"}')

    with (
        Client(demo_server.target) as client,
        pytest.raises(Aborted, match=r"no longer this process's"),
    ):
        job(corpus, store, save_every=1000.0).run(client, on_progress=replace_owner)
    assert fsspec.filesystem("memory").cat_file("/vectors/one/owner.json") == (
        b'{"token": "another"}'
    )


def test_errors_name_the_url(demo_server, corpus, store):
    with Client(demo_server.target) as client:
        job(corpus, store).run(client)
        with pytest.raises(FailedPrecondition, match=f"^{store} holds a finished job"):
            job(corpus, store).run(client)
        with pytest.raises(FailedPrecondition, match=f"^{store} holds a job of other settings"):
            job(corpus, store, mode="long", resume=True).run(client)
        write(store, "vectors-00001.safetensors", b"altered")
        with pytest.raises(DataLoss, match=f"^{store}/vectors-00001.safetensors has 7 bytes"):
            job(corpus, store, resume=True).run(client)
        fsspec.filesystem("memory").rm_file("/vectors/one/manifest.json")
        with pytest.raises(FailedPrecondition, match=f"^{store} holds vectors without m") as error:
            job(corpus, store, resume=True).run(client)
        assert error.value.setting == "out"


def cut_when(monkeypatch, chosen):
    """Let the store in memory fail, whole file by whole file, from an upload on."""
    uploads = []

    def upload(self, lpath, rpath, **_):
        uploads.append(rpath)
        if chosen(uploads):
            raise ConnectionError("the cable was cut")
        self.pipe_file(rpath, Path(lpath).read_bytes())

    monkeypatch.setattr(MemoryFileSystem, "put_file", upload)
    return uploads


def test_lost_store_stops_and_resumes(demo_server, corpus, store, monkeypatch):
    with Client(demo_server.target) as client:
        lost = job(corpus, store, ordered=True, save_every=0.0)
        with monkeypatch.context() as patched, pytest.raises(OSError, match="cut") as stopped:
            cut_when(patched, lambda uploads: uploads[-1].endswith("/vectors-00001.jsonl"))
            lost.run(client)
        assert str(stopped.value) == f"{store} cannot be read or written to: the cable was cut"
        assert lost.progress.durable == 16
        again = job(corpus, store, ordered=True, resume=True)
        assert again.run(client).resumed_vectors == 16


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cut_anywhere_can_be_resumed(demo_server, corpus, store, check_remote, layout):
    cuts = [*range(1, 13), 45, 83]
    with Client(demo_server.target) as client:
        for number in cuts:
            url = f"{store}/{number}"
            with pytest.MonkeyPatch.context() as patched, pytest.raises(OSError, match="cut"):
                cut_when(patched, lambda uploads, number=number: len(uploads) >= number)
                job(corpus, url, layout, save_every=0.0).run(client)
            assert job(corpus, url, layout, resume=True).run(client).lost == 0
            check_remote(url, layout)


def test_unchanged_files_are_uploaded_once(demo_server, corpus, store, monkeypatch):
    uploads = cut_when(monkeypatch, lambda _: False)
    with Client(demo_server.target) as client:
        job(corpus, store, save_every=1000.0).run(client)
        job(corpus, store, save_every=1000.0, resume=True).run(client)
    vectors = [path for path in uploads if "/vectors-" in path]
    assert len(vectors) == len(set(vectors)) == 8


def test_passed_errors_leave_the_store(demo_server, store, tmp_path):
    corpus = write_corpus(tmp_path / "good.jsonl", range(1, 20))
    with Client(demo_server.target) as client:
        with pytest.raises(StopHereError):
            job(corpus, store, ordered=True).run(client, on_progress=stop_after(5))
        failure = {"index": 18, "id": "doc-19", "code": "UNAVAILABLE", "message": "gone"}
        write(store, "errors.jsonl", json.dumps(failure).encode() + b"\n")
        assert job(corpus, store, ordered=True, resume=True).run(client).vectors == 19
    assert not (downloaded(store, tmp_path / "remote") / "errors.jsonl").exists()


def test_lost_server_is_named(demo_server, corpus, s3, monkeypatch):
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "retries", 1)
    with (
        Client(demo_server.target) as client,
        pytest.raises(OSError, match=f"^s3://{s3.bucket}/a .*Could not connect"),
    ):
        job(corpus, f"s3://{s3.bucket}/a").run(client, on_progress=lambda _: s3.stop())


@pytest.mark.usefixtures("s3")
def test_missing_bucket_is_named(demo_server, corpus):
    with Client(demo_server.target) as client, pytest.raises(OSError, match="bucket does not ex"):
        job(corpus, "s3://nobody-has-this/vectors").run(client)


def test_missing_credentials_are_named(demo_server, corpus, s3, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with Client(demo_server.target) as client, pytest.raises(OSError, match="locate credentials"):
        job(corpus, f"s3://{s3.bucket}/vectors").run(client)


@pytest.mark.parametrize(
    ("url", "layout", "error", "reason"),
    [
        ("memory://a/b", "files", InvalidArgument, "takes shards or parquet"),
        ("ftp://a/b", "shards", InvalidArgument, "cannot use ftp://a/b"),
        ("s3://", "shards", InvalidArgument, "cannot use s3://"),
    ],
)
def test_unfit_urls_are_refused(corpus, url, layout, error, reason):
    with pytest.raises(error, match=re.escape(reason)) as refused:
        VectorJob(open_documents(corpus), url, mode="short", layout=Layout(layout))
    assert getattr(refused.value, "setting", "") == ("format" if layout == "files" else "out")


def test_missing_package_is_named(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "gs", raising=False)
    with pytest.raises(MissingExtra, match=r"^gs://a/b needs gcsfs.*: pip install gcsfs$"):
        job(corpus, "gs://a/b")
