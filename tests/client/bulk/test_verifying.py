"""Resumed jobs whose files were changed."""

import hashlib
import json
import re

import pytest

from actvec.client import Client
from actvec.client.errors import DataLoss, FailedPrecondition
from tests.client.bulk.jobs import COUNT, StopHereError, failures_of, job, stop_after
from tests.client.bulk.saved import read_back

# For each format: a vector file in the middle, the file beside it, and the files that a user
# removes to have its vectors computed again.
VECTORS = {
    "files": "activation_vector_short_doc-25.safetensors",
    "shards": "vectors-00001.safetensors",
    "parquet": "vectors.parquet/part-00001.parquet",
}
REMOVED = {
    "files": ["*_doc-25*"],
    "shards": ["vectors-0000[1-9].*"],
    "parquet": ["vectors.parquet/part-0000[1-9].parquet"],
}


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:40])


DAMAGE = {
    "flipped": (flip, {"files": "another SHA-256"}, "was altered: its SHA-256 is another"),
    "cut": (cut, {}, "has 40 bytes"),
    "missing": (lambda path: path.unlink(), {}, "is missing"),
}


@pytest.fixture(params=VECTORS)
def damaged(request, client, corpus, tmp_path):
    """A finished job in each format: its layout, and a file of vectors in its middle."""
    job(corpus, tmp_path / "out", request.param).run(client)
    return request.param, tmp_path / "out" / VECTORS[request.param]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_vectors_are_named(client, corpus, check_complete, damaged, damage):
    layout, path = damaged
    out = path.parents[layout == "parquet"]
    spoil, other, what = DAMAGE[damage]
    spoil(path)
    with pytest.raises(DataLoss, match=re.escape(other.get(layout, what))) as told:
        job(corpus, out, layout, resume=True).run(client)
    assert str(path) in str(told.value)
    assert "computed again" in str(told.value)
    for pattern in REMOVED[layout]:
        for removed in out.glob(pattern):
            removed.unlink()
    progress = job(corpus, out, layout, resume=True).run(client)
    assert progress.lost == progress.vectors - progress.resumed_vectors > 0
    check_complete(out, layout)


def test_damaged_index_is_named(client, corpus, tmp_path):
    """Its rows show which documents are done: one altered digit would lose a document."""
    out = tmp_path / "out"
    job(corpus, out).run(client)
    index = out / "vectors-00002.jsonl"
    index.write_text(re.sub(r'"tokens": \d', '"tokens": 9', index.read_text(), count=1))
    with pytest.raises(DataLoss, match=r"vectors-00002\.jsonl was altered"):
        job(corpus, out, resume=True).run(client)


def test_damaged_files_are_named_up_to_five(client, corpus, tmp_path):
    out = tmp_path / "out"
    job(corpus, out, "files").run(client)
    for path in sorted(out.glob("*.safetensors"))[:7]:
        cut(path)
    with pytest.raises(DataLoss, match=r"; 2 more\. Restore") as told:
        job(corpus, out, "files", resume=True).run(client)
    assert str(told.value).count("has 40 bytes") == 5


@pytest.mark.parametrize("layout", ["shards", "parquet"])
def test_checksums_are_those_of_the_files(client, corpus, tmp_path, layout):
    out = tmp_path / "out"
    with pytest.raises(StopHereError):
        job(corpus, out, layout, save_every=0).run(client, on_progress=stop_after(25))
    job(corpus, out, layout, resume=True).run(client)
    recorded = {}
    for line in (out / "checksums.jsonl").read_text().splitlines():
        record = json.loads(line)
        recorded[record["name"]] = (record["bytes"], record["sha256"])
    files = [path for pattern in ("vectors-*", "vectors.parquet/*") for path in out.glob(pattern)]
    assert recorded == {
        path.relative_to(out).as_posix(): (
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in files
    }


def test_files_without_checksums_are_not_believed(client, corpus, tmp_path):
    out = tmp_path / "out"
    job(corpus, out).run(client)
    checksums = out / "checksums.jsonl"
    lines = checksums.read_text().splitlines(keepends=True)
    checksums.write_text("".join(line for line in lines if "vectors-00001.jsonl" not in line))
    with pytest.raises(DataLoss, match=r"vectors-00001\.jsonl has no line in the checksums"):
        job(corpus, out, resume=True).run(client)
    for damaged in ("{}", "[]", '"name"', '{"name": "a"}'):
        checksums.write_text("".join([f"{damaged}\n", *lines]))
        with pytest.raises(DataLoss, match=r"checksums\.jsonl, line 1: not as it was written"):
            job(corpus, out, resume=True).run(client)


def test_checksums_of_an_earlier_job_are_forgotten(client, corpus, tmp_path):
    """One whose manifest and vectors were removed, for example."""
    out = tmp_path / "out"
    out.mkdir()
    checksums = out / "checksums.jsonl"
    checksums.write_text('{"name": "vectors-00009.jsonl", "bytes": 1, "sha256": "0"}\n')
    job(corpus, out).run(client)
    assert "vectors-00003.jsonl" in checksums.read_text()
    assert "vectors-00009.jsonl" not in checksums.read_text()


def test_refused_start_leaves_the_checksums(client, corpus, tmp_path, check_complete):
    """A job whose manifest was lost, and is restored, is resumed with them."""
    out = tmp_path / "out"
    job(corpus, out).run(client)
    manifest = (out / "manifest.json").rename(tmp_path / "manifest.json")
    with pytest.raises(FailedPrecondition, match="holds vectors already"):
        job(corpus, out).run(client)
    manifest.rename(out / "manifest.json")
    job(corpus, out, resume=True).run(client)
    check_complete(out)


def test_half_line_of_checksums_is_mended(client, corpus, tmp_path, check_complete):
    out = tmp_path / "out"
    with pytest.raises(StopHereError):
        job(corpus, out).run(client, on_progress=stop_after(20))
    with (out / "checksums.jsonl").open("a") as file:
        file.write('{"name": "vectors-00001.safe')
    job(corpus, out, resume=True).run(client)
    job(corpus, out, resume=True).run(client)
    check_complete(out)


def test_lost_vectors_are_reported(program, demo_server, corpus, tmp_path, check_complete):
    out = tmp_path / "out"
    arguments = (
        *("stream", corpus, "--mode=short", "--out", out, "--resume", "--format=shards"),
        *("--rows-per-file=16", "--target", demo_server.target),
    )
    program(*arguments)
    for path in out.glob("vectors-00003.*"):
        path.unlink()
    _, _, errors = program(*arguments)
    assert f"{COUNT - len(failures_of(out)) - 48} vectors of an earlier run were missing" in errors
    assert "vectors-00003.safetensors, vectors-00003.jsonl" in errors
    assert "errors.jsonl; the first is 'doc-0': text: is empty or blank" in errors
    check_complete(out)


def test_finished_job_is_verified_without_a_server(client, corpus, tmp_path):
    out = tmp_path / "out"
    job(corpus, out).run(client)
    flip(out / VECTORS["shards"])
    with Client("127.0.0.1:1") as nobody, pytest.raises(DataLoss, match="was altered"):
        job(corpus, out, resume=True).run(nobody)
    assert len(read_back(out, "shards")) == COUNT - len(failures_of(out))
