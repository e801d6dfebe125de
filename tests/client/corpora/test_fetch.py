"""Fetching a corpus: through the real `datasets` package, from files in the shape of C4's."""

import contextlib
import hashlib
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from actvec.client.cli import progress
from tests.client.corpora.c4 import ROWS, SHARDS, c4_rows
from tests.client.corpora.fetches import ACTVEC, LEAST, MOST, fetch, read, referee


@pytest.mark.parametrize("seed", [0, 1, 2, -5])
@pytest.mark.parametrize(("documents", "candidates"), [(10, 25), (10, 10), (5, 10_000)])
def test_the_sample_is_what_its_definition_says(c4, tmp_path, seed, documents, candidates):
    path = tmp_path / "corpus.jsonl"
    fetch(c4, path, documents=documents, seed=seed, candidates=candidates)
    assert read(path) == referee(documents=documents, seed=seed, candidates=candidates)


def test_seed_determines_the_sample(c4, tmp_path):
    for name in ("one", "two"):
        fetch(c4, tmp_path / f"{name}.jsonl.gz", seed=4)
        fetch(c4, tmp_path / f"{name}.parquet", seed=4)
    fetch(c4, tmp_path / "other.jsonl.gz", seed=5)
    one, two, other = (tmp_path / f"{name}.jsonl.gz" for name in ("one", "two", "other"))
    assert one.read_bytes() == two.read_bytes()
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert {text for _, text in read(one)} != {text for _, text in read(other)}


def test_first_documents_are_the_smaller_sample(c4, tmp_path):
    fetch(c4, tmp_path / "many.jsonl", documents=20, candidates=40)
    fetch(c4, tmp_path / "few.jsonl", documents=5, candidates=40)
    assert read(tmp_path / "many.jsonl")[:5] == read(tmp_path / "few.jsonl")


def test_all_texts_keep_the_order_of_the_dataset(c4, tmp_path):
    fetched = fetch(c4, tmp_path / "all.jsonl", documents=None)
    ids = [document_id for document_id, _ in read(tmp_path / "all.jsonl")]
    assert ids == sorted(ids)
    assert len(ids) == fetched.documents == fetched.counts.accepted
    assert fetched.exhausted


def test_every_text_is_counted_under_one_reason(c4, tmp_path):
    counts = fetch(c4, tmp_path / "all.jsonl", documents=None).counts
    lengths = [len(row["text"].split()) for shard in range(SHARDS) for row in c4_rows(shard)]
    assert counts.seen == SHARDS * ROWS
    assert counts.empty == lengths.count(0)
    assert counts.too_short == sum(0 < length < LEAST for length in lengths)
    assert counts.too_long == sum(length > MOST for length in lengths)
    assert counts.duplicate == SHARDS - 1


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz", "c.parquet", "C.JSONL"])
def test_every_format_holds_the_same(c4, tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir()
    fetch(c4, path)
    assert read(path) == referee(documents=10, seed=0, candidates=40)
    assert {one.name for one in path.parent.iterdir()} == {name, f"{name}.manifest.json"}


def test_manifest_records_the_origin(c4, tmp_path):
    fetched = fetch(c4, tmp_path / "c.jsonl", seed=3)
    manifest = json.loads(fetched.manifest.read_text())
    assert manifest["request"]["sample"]["seed"] == 3
    assert manifest["request"]["words"] == {"least": LEAST, "most": MOST}
    assert len(manifest["source"]["files"]) == SHARDS
    assert manifest["counts"]["seen"] == fetched.counts.seen
    assert manifest["sha256"] == hashlib.sha256((tmp_path / "c.jsonl").read_bytes()).hexdigest()


def test_short_dataset_exits_with_1(c4, tmp_path, program):
    code, output, errors = program(
        *("corpus", "fetch", "--files", f"{c4}/*.gz", "--num-samples", 1000),
        *("--save-local", tmp_path / "c.jsonl"),
    )
    assert code == 1
    documents = len(read(tmp_path / "c.jsonl"))
    assert f"{documents} documents" in output
    assert f"it holds {documents} accepted documents, and 1,000 were asked for" in errors


@pytest.mark.parametrize("cached", [False, True])
def test_acceptance_is_shown(c4, tmp_path, program, cached):
    options = ["--files", f"{c4}/*.gz", "--min-words", LEAST, "--max-words", MOST]
    options += ["--save-local", tmp_path / "c.jsonl"]
    for _ in range(1 + cached):
        code, output, _ = program("corpus", "fetch", *options)
    counts = fetch(c4, tmp_path / "same.jsonl", documents=None).counts
    assert code == 0
    assert (
        f"{counts.seen} texts seen: {counts.accepted} accepted, {counts.empty} empty,"
        f" {counts.too_short} too short, {counts.too_long} too long, {counts.duplicate} duplicate"
    ) in output


def test_log_gets_a_line_now_and_then(c4, tmp_path, program, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_EVERY", 0)
    options = ["--files", f"{c4}/*.gz", "--num-samples", 5, "--save-local", tmp_path / "c.jsonl"]
    _, _, errors = program("corpus", "fetch", *options)
    assert "\n7 of 20 accepted, 7 texts seen\n" in errors


def test_a_terminal_gets_a_bar(c4, tmp_path):
    reader, terminal = pty.openpty()
    options = ["--files", f"{c4}/*.gz", "--save-local", str(tmp_path / "c.jsonl")]
    program = subprocess.Popen(
        [*ACTVEC, "corpus", "fetch", *options], stderr=terminal, stdout=subprocess.DEVNULL
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # a terminal without a program behind it ends like this
        while data := os.read(reader, 4096):
            shown += data
    os.close(reader)
    assert program.wait(60) == 0
    assert shown.decode().count("━") >= 40


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "give one of"),
        (["--files", "c4/en/*", "--dataset", "x"], "give one of"),
        (["--files", "nothing/*"], "no file matches nothing/*"),
        (["--files", "c4/en/*", "--column", "body"], "no column 'body'"),
        (["--files", "c4/en/*", "--min-words", "1000"], "none of 180 texts was accepted"),
        (["--files", "c4/en/*", "--min-words", "9", "--max-words", "8"], "no text has at least 9"),
        (
            ["--files", "c4/en/*", "--num-samples", "9", "--candidates", "8"],
            "at least as many",
        ),
        (["--files", "c4/en/*", "--num-samples", "0"], "0"),
        (["--files", "notes.txt"], "of no supported kind"),
        (["--files", "broken.json"], "1 unreadable, 0 empty"),
        (["--files", "broken.json"], "broken.json, line 1: not JSON"),
        (["--files", "array.json"], "array.json is one JSON array"),
        (["--files", "broken.parquet"], "broken.parquet: "),
        (
            ["--dataset", "c4", "--num-samples", "9", "--config", "de"],
            "BuilderConfig 'de' not found",
        ),
        (["--dataset", "c4", "--num-samples", "9", "--config", "en", "--split", "x"], "Bad split"),
        (["--dataset", "c4"], "needs --num-samples"),
        (["--files", "c4/en/*", "--config", "en"], "need a --dataset"),
        (["--files", "c4/en/*", "--save-local", "c.csv"], ".jsonl, .jsonl.gz or .parquet"),
        (["--files", "c4/en/*", "--save-local", "/proc/none/c.jsonl"], "/proc/none"),
    ],
)
@pytest.mark.usefixtures("c4_dataset")
def test_failed_fetch_exits_with_2(tmp_path, program, monkeypatch, options, reason):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("notes")
    Path("broken.json").write_text("{no json")
    Path("array.json").write_text('[{"text": "a"}]')
    Path("broken.parquet").write_text("PAR1")
    before = sorted(Path().iterdir())
    if "--save-local" not in options:
        options = [*options, "--save-local", "c.jsonl"]
    code, output, errors = program("corpus", "fetch", *options)
    assert (code, output) == (2, "")
    assert reason in errors
    assert sorted(Path().iterdir()) == before
