"""Where a corpus comes from: a dataset in a folder or of a hub, files, URLs, a pickle."""

import json
import os
import pickle
import subprocess
import sys

import pytest

from actvec.client import MissingExtra, SourceBroken
from actvec.client.corpora import DataFiles, HubDataset, Sample, WordLimits, fetch_corpus

from ..local_hub import FIRST, SECOND, Repository
from .c4 import ROWS, SHARDS
from .fetches import ACTVEC, LEAST, MOST, fetch, rank, read, referee, shards_in_order


def test_nothing_is_read_beyond_the_last_candidate(tmp_path):
    (tmp_path / "0.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "1.jsonl").write_text("no JSON")
    source = DataFiles((f"{tmp_path}/*.jsonl",))
    # Shard 0 comes first, and its last text is the last that is wanted.
    seed = next(seed for seed in range(99) if rank(seed, b"0") < rank(seed, b"1"))
    fetched = fetch_corpus(
        source, tmp_path / "c.jsonl.gz", words=WordLimits(), sample=Sample(2, seed, candidates=2)
    )
    assert (fetched.counts.seen, fetched.exhausted) == (2, False)
    with pytest.raises(SourceBroken):
        fetch_corpus(source, tmp_path / "d.jsonl.gz", words=WordLimits(), sample=Sample(2, seed))


def test_a_folder_that_is_laid_out_as_a_dataset_is_one(c4_dataset, c4, tmp_path):
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


def test_a_pickled_list_of_strings_becomes_a_corpus(tmp_path, program):
    texts = ["one two", "", "three four five", "one two", "six"]
    (tmp_path / "old.pkl").write_bytes(pickle.dumps(texts))
    path = tmp_path / "c.jsonl"
    code, _, _ = program(
        *("corpus", "fetch", "--from-pickle", tmp_path / "old.pkl", "--min-words", 2),
        *("--save-local", path),
    )
    assert code == 0
    assert read(path) == [("00000-0000000", "one two"), ("00000-0000002", "three four five")]


def test_without_the_packages_it_says_what_to_install(c4, tmp_path, monkeypatch):
    for package in ("datasets", "pyarrow.parquet"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(MissingExtra, match=r"pip install 'actvec\[data\]'"):
                fetch(c4, tmp_path / "c.parquet")


@pytest.fixture
def c4_on_hub(local_hub, c4_dataset):
    """The repository of a dataset that is shaped as C4 is."""
    local_hub.repositories["datasets/allenai/c4"] = Repository(c4_dataset)
    return local_hub.repositories["datasets/allenai/c4"]


@pytest.fixture
def fetch_from_hub(local_hub, tmp_path):
    """Run `actvec corpus fetch` of that dataset, by itself: the packages read variables once."""

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


def test_a_dataset_of_the_hub_is_read_at_the_commit_that_is_the_newest(
    local_hub, c4_on_hub, fetch_from_hub, tmp_path
):
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


def test_a_download_that_broke_goes_on_at_the_commit_that_it_began_with(
    local_hub, c4_on_hub, fetch_from_hub, tmp_path
):
    path = tmp_path / "c.jsonl"
    # Shard 2 is the last one read. (The first of a dataset is read for its columns already.)
    seed = next(seed for seed in range(99) if shards_in_order(seed)[-1] == 2)
    options = ["--num-samples", "25", "--seed", str(seed)]
    c4_on_hub.gone = {"en/c4-train.00002-of-00003.json.gz"}
    # A connection that is cut in mid-file is opened again by the libraries, and not noticed.
    c4_on_hub.cut = {"en/c4-train.00001-of-00003.json.gz"}
    ended = fetch_from_hub(path, *options)
    assert ended.returncode == 2
    assert not c4_on_hub.cut
    assert f"{2 * ROWS} texts were read and are kept" in ended.stderr
    assert "the same command goes on from there" in ended.stderr
    c4_on_hub.gone = set()
    # The commit before is still there.
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
