"""Whatever centers reports the mean by name, with its documents and positions."""

import json

import pytest

from actvec.client import Client
from actvec.client.records.means import ENOUGH_DOCUMENTS

TEXT = "In 1927 the orchard was sold."
WARNING = "documents per position. Below 100, a mean follows its own few documents"


@pytest.fixture(scope="module")
def few(demo_server):
    with Client(demo_server.target) as client:
        return client.corpus_mean([TEXT, "It was."], job="few")


@pytest.fixture(scope="module")
def many(demo_server):
    with Client(demo_server.target) as client:
        return client.corpus_mean([TEXT] * ENOUGH_DOCUMENTS, job="many")


@pytest.fixture
def actvec(actvec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ({"id": f"doc-{n}", "text": TEXT} for n in range(3))
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return actvec


CENTERING = {
    "extract": ("--text", TEXT, "--mode", "short"),
    "stream": ("corpus.jsonl", "--mode", "short", "--out", "out"),
    "similarity": ("corpus.jsonl",),
    "csv": ("corpus.jsonl", "--out", "out"),
    "report": ("corpus.jsonl",),
    "verify": ("corpus.jsonl",),
}


@pytest.mark.parametrize("verb", CENTERING)
def test_centering_reports_the_mean(actvec, few, verb):
    code, output, errors = actvec(verb, *CENTERING[verb], "--center", "few")
    assert code == 0
    assert f"Centered by few: 2 documents, {few.max_tokens} positions." in errors
    assert f"few has {few.tokens / few.max_tokens:.1f} {WARNING}" in errors
    assert "Centered by" not in output


@pytest.mark.parametrize("verb", [verb for verb in CENTERING if verb != "verify"])
def test_raw_vectors_report_no_mean(actvec, verb):
    code, _, errors = actvec(verb, *CENTERING[verb])
    assert code == 0
    assert "Centered" not in errors


def test_means_of_enough_documents_need_no_warning(actvec, many):
    assert many.documents_per_position == ENOUGH_DOCUMENTS
    _, _, errors = actvec("extract", *CENTERING["extract"], "--center", many.id)
    assert errors == f"Centered by many: 100 documents, {many.max_tokens} positions.\n"


def test_mean_of_few_documents_is_warned_of(actvec):
    _, _, errors = actvec("mean", "compute", "corpus.jsonl", "--name", "new")
    assert f"new has 3.0 {WARNING}" in errors


def test_resumed_jobs_report_the_mean(actvec, few, tmp_path):
    stream = ("stream", *CENTERING["stream"], "--center", "few", "--format", "shards", "--resume")
    actvec(*stream)
    for path in (tmp_path / "out").glob("vectors-*"):
        path.unlink()
    _, _, errors = actvec(*stream)
    assert f"Centered by {few.name}: 2 documents" in errors
