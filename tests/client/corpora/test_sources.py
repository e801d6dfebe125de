"""Sources of a corpus: a dataset in a folder or on a hub, files, URLs."""

import json
import os
import subprocess
import sys

import pytest

from actvec.client import MissingExtra, SourceBroken, UnsupportedInput
from actvec.client.corpora import DataFiles, HubDataset, Sample, WordLimits, fetch_corpus
from tests.client.corpora.c4 import ROWS, SHARDS
from tests.client.corpora.fetches import (
    ACTVEC,
    LEAST,
    MOST,
    fetch,
    rank,
    read,
    referee,
    shards_in_order,
)
from tests.local_hub import FIRST, SECOND, Repository


def test_nothing_is_read_beyond_the_last_candidate(tmp_path):
    (tmp_path / "0.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "1.jsonl.gz").write_text("no archive")
    source = DataFiles((f"{tmp_path}/*.jsonl*",))
    # Shard 0 comes first, and its last text is the last needed.
    seed = next(seed for seed in range(99) if rank(seed, b"0") < rank(seed, b"1"))
    fetched = fetch_corpus(
        source, tmp_path / "c.parquet", words=WordLimits(), sample=Sample(2, seed, candidates=2)
    )
    assert (fetched.counts.seen, fetched.exhausted) == (2, False)
    with pytest.raises(SourceBroken):
        fetch_corpus(source, tmp_path / "d.parquet", words=WordLimits(), sample=Sample(2, seed))


def test_wildcard_matches_files_alone(tmp_path):
    """A folder beside them is not one of them; a table is."""
    (tmp_path / "data" / "more").mkdir(parents=True)
    (tmp_path / "data" / "0.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "data" / "1.csv").write_text("text,id\ntwo,2\n")
    path = tmp_path / "c.jsonl"
    source = DataFiles((f"{tmp_path}/data/*",))
    fetched = fetch_corpus(source, path, words=WordLimits(), sample=Sample(2))
    assert fetched.documents == 2
    assert sorted(one["text"] for one in map(json.loads, path.open())) == ["one", "two"]
    with pytest.raises(UnsupportedInput, match="no file matches"):
        DataFiles((f"{tmp_path}/data/m*",)).identity()


def test_folder_may_be_a_dataset(c4_dataset, c4, tmp_path):
    words, sample = WordLimits(LEAST, MOST), Sample(10)
    path, other = tmp_path / "c.jsonl", tmp_path / "other.jsonl"
    fetch_corpus(HubDataset(str(c4_dataset), "en"), path, words=words, sample=sample)
    fetch(c4, tmp_path / "same.jsonl")
    assert path.read_bytes() == (tmp_path / "same.jsonl").read_bytes()
    fetch_corpus(HubDataset(str(c4_dataset), "other"), other, words=words, sample=sample)
    assert other.read_bytes() != path.read_bytes()


def test_parquet_and_plain_files_are_read_too(c4, tmp_path):
    fetch(c4, tmp_path / "all.parquet", documents=None)
    fetch(c4, tmp_path / "all.jsonl", documents=None)
    for name in ("all.parquet", "all.jsonl"):
        source = DataFiles((str(tmp_path / name),))
        path = tmp_path / f"of {name}.jsonl"
        fetch_corpus(source, path, words=WordLimits(), sample=Sample(10))
    of_parquet, of_lines = (tmp_path / f"of all.{kind}.jsonl" for kind in ("parquet", "jsonl"))
    assert read(of_parquet) == read(of_lines)


def test_missing_packages_are_named(c4, tmp_path, monkeypatch):
    words, sample = WordLimits(), Sample(10)
    for package, source in (
        ("datasets", HubDataset(str(c4))),
        ("pyarrow.parquet", DataFiles((f"{c4}/*.gz",))),
        ("fsspec.core", DataFiles(("https://example.org/c4.jsonl",))),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(MissingExtra, match=r"pip install 'actvec\[data\]'"):
                fetch_corpus(source, tmp_path / "c.parquet", words=words, sample=sample)


@pytest.fixture
def c4_on_hub(local_hub, c4_dataset):
    """The repository of a dataset in the shape of C4."""
    local_hub.repositories["datasets/allenai/c4"] = Repository(c4_dataset)
    return local_hub.repositories["datasets/allenai/c4"]


@pytest.fixture
def fetch_from_hub(local_hub, tmp_path):
    """Run `actvec corpus fetch` on that dataset in its own process: the packages read variables
    once.
    """

    def run(path, *options):
        return subprocess.run(
            [
                *(*ACTVEC, "corpus", "fetch", "--dataset", "allenai/c4", "--config", "en"),
                *("--min-words", str(LEAST), "--max-words", str(MOST)),
                *("--save-local", str(path), "--json", *options),
            ],
            env=os.environ | {"HF_ENDPOINT": local_hub.address, "HF_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_dataset_is_read_at_its_newest_commit(local_hub, c4_on_hub, fetch_from_hub, tmp_path):
    path = tmp_path / "c.jsonl"
    ended = fetch_from_hub(path, "--num-samples", "10")
    assert ended.returncode == 0, ended.stderr
    assert read(path) == referee(documents=10, seed=0, candidates=40)
    manifest = json.loads((tmp_path / "c.jsonl.manifest.json").read_text())
    assert manifest["source"] == {"commit": FIRST}
    c4_on_hub.refs, c4_on_hub.folders = {"main": SECOND}, {FIRST: c4_on_hub.folder}
    again = fetch_from_hub(path, "--num-samples", "10")
    assert json.loads(again.stdout)["cached"], again.stderr
    asked = [line for line in local_hub.requests if "c4-train" in line]
    assert asked
    assert all(f"/resolve/{FIRST}" in line for line in asked)


def test_broken_download_resumes_at_its_commit(local_hub, c4_on_hub, fetch_from_hub, tmp_path):
    path = tmp_path / "c.jsonl"
    # Shard 2 is read last. (The first of a dataset has been read for its columns.)
    seed = next(seed for seed in range(99) if shards_in_order(seed)[-1] == 2)
    options = ["--num-samples", "25", "--seed", str(seed)]
    c4_on_hub.gone = {"en/c4-train.00002-of-00003.json.gz"}
    # The libraries reopen a connection cut in mid-file, unnoticed.
    c4_on_hub.cut = {"en/c4-train.00001-of-00003.json.gz"}
    ended = fetch_from_hub(path, *options)
    assert ended.returncode == 2
    assert not c4_on_hub.cut
    assert f"{2 * ROWS} texts were read and are kept" in ended.stderr
    assert "the same fetch continues after them" in ended.stderr
    c4_on_hub.gone = set()
    # The earlier commit still exists.
    c4_on_hub.refs, c4_on_hub.folders = {"main": SECOND}, {FIRST: c4_on_hub.folder}
    ended = fetch_from_hub(path, *options)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["resumed_at"] == 2 * ROWS
    assert read(path) == referee(documents=25, seed=seed, candidates=100)
    assert not any(SECOND in line for line in local_hub.requests)


@pytest.mark.usefixtures("c4_on_hub")
def test_files_are_read_by_url(local_hub, tmp_path):
    folder = f"{local_hub.address}/datasets/allenai/c4/resolve/main/en"
    urls = tuple(f"{folder}/c4-train.{shard:05d}-of-00003.json.gz" for shard in range(SHARDS))
    path = tmp_path / "c.jsonl"
    fetch_corpus(DataFiles(urls), path, words=WordLimits(LEAST, MOST), sample=Sample(10))
    assert read(path) == referee(documents=10, seed=0, candidates=40)
