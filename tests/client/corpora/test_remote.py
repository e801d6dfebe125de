"""Files behind URLs: temporary errors are retried at the same place, others are not."""

import json

import pytest

from actvec.client import SourceBroken
from actvec.client.corpora import DataFiles, Sample, WordLimits, fetch_corpus, remote
from tests.client.corpora.fetches import read
from tests.local_hub import Repository

COUNT = 40_000


@pytest.fixture
def served(local_hub, tmp_path, monkeypatch):
    """A file of 2 MB on the hub, its URL, and retries without their pauses."""
    monkeypatch.setattr(remote, "_PAUSES", (0.01, 0.01, 0.01))
    folder = tmp_path / "data"
    folder.mkdir()
    lines = (json.dumps({"text": f"text number {number} of the corpus"}) for number in range(COUNT))
    (folder / "a.jsonl").write_text("\n".join(lines))
    local_hub.repositories["datasets/o/n"] = repository = Repository(folder)
    return repository, f"{local_hub.address}/datasets/o/n/resolve/main/a.jsonl"


def fetch(url, path):
    return fetch_corpus(DataFiles((url,)), path, words=WordLimits(), sample=Sample())


def test_cut_download_continues(served, local_hub, tmp_path):
    repository, url = served
    downloads = []

    def cut(line):
        if line.startswith("GET"):
            downloads.append(line)
            repository.cut = {"a.jsonl"} if len(downloads) <= 3 else set()

    local_hub.on_request = cut
    fetched = fetch(url, tmp_path / "out.jsonl")
    assert len(downloads) > 3
    assert fetched.documents == COUNT
    assert read(tmp_path / "out.jsonl")[-1][1] == f"text number {COUNT - 1} of the corpus"


def test_busy_server_is_asked_again(served, local_hub, tmp_path):
    _, url = served
    refusals = []

    def refuse(line):
        local_hub.status = None
        if line.startswith("GET") and len(refusals) < 3:
            refusals.append(line)
            local_hub.status = 503

    local_hub.on_request = refuse
    assert fetch(url, tmp_path / "out.jsonl").documents == COUNT
    assert len(refusals) == 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refusal_is_final(served, local_hub, tmp_path, status):
    _, url = served
    local_hub.status = status
    local_hub.take_requests()
    with pytest.raises(SourceBroken, match=r"shard 0 before its first row: .*a\.jsonl"):
        fetch(url, tmp_path / "out.jsonl")
    # Two for the look at its fields, two for reading it.
    assert len(local_hub.take_requests()) == 4
