"""Sums made in this process equal those of a server's job, each document counted exactly once."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from safetensors.numpy import load

from actvec.client import Client, Document, Failure
from actvec.client.records.settings import MeanSettings
from actvec.server.errors import DoesNotFitError, EngineError, JobMismatchError
from actvec.server.jobs.checkpoint import JobDirectory
from actvec.server.means.store import MeanStore
from actvec.shards.means import SumMaker, compute_mean
from tests.conftest import NotStartedError

DOCUMENTS = [
    *(Document(f"doc-{i}", f"In {1700 + i} the bridge was closed again.") for i in range(40)),
    Document("blank", " "),
    Document("long", "word " * 5000),
    Document("half", "a \ud800 surrogate"),
    Failure("broken", "INVALID_ARGUMENT", "line 44 is no JSON", "text"),
]
SETTINGS = MeanSettings(job="bridges", name="bridges", variance=True)


@pytest.fixture
def compute(host, tmp_path):
    """Compute the mean of documents, in the folders that every call shares."""
    directory, store = JobDirectory(tmp_path / "jobs" / "bridges"), MeanStore(tmp_path / "means")

    def run(documents=DOCUMENTS, settings=SETTINGS):
        return compute_mean(host, documents, settings, directory, store)

    run.store = store
    return run


@pytest.fixture(scope="module")
def served(demo_server):
    """The server's mean of the same documents."""
    with Client(demo_server.target) as client:
        made = client.corpus_mean(DOCUMENTS, job="in-process", name="bridges", variance=True)
        return client.download_mean(made.id)


def test_mean_equals_the_servers(compute, served):
    record = compute()
    theirs, ours = load(served.content), load(compute.store.content(record))
    assert theirs.keys() == ours.keys()
    assert np.array_equal(ours["counts"], theirs["counts"])
    for name in ("sums", "square_sums"):
        assert_allclose(ours[name], theirs[name], rtol=1e-12, atol=1e-12)
    assert record.corpus_sha256 == served.record.corpus_sha256
    assert (record.documents, record.tokens) == (served.record.documents, served.record.tokens)
    assert (record.name, record.model.model) == ("bridges", "demo")
    skipped = [(one.reason, one.documents, one.first_id) for one in record.skipped]
    theirs = [(one.reason, one.documents, one.first_id) for one in served.record.skipped]
    assert skipped == theirs


def test_finished_mean_is_not_recomputed(compute, host, monkeypatch):
    first = compute()
    monkeypatch.setattr(host, "steps", pytest.fail)
    assert compute() == first


@pytest.mark.parametrize(
    "others", [DOCUMENTS[1:], [*DOCUMENTS, Document("more", "One more.")], DOCUMENTS[:-1]]
)
def test_finished_mean_is_of_its_documents(compute, others):
    compute()
    with pytest.raises(JobMismatchError, match="documents already"):
        compute(others)


def test_deleted_mean_is_computed_anew(compute):
    compute.store.delete(compute())
    assert compute(DOCUMENTS[:3]).documents == 3


def test_other_settings_are_refused(compute):
    def broken():
        yield from DOCUMENTS[:3]
        raise OSError("the disk is away")

    with pytest.raises(OSError, match="away"):
        compute(broken())
    with pytest.raises(JobMismatchError, match="other settings"):
        compute(settings=MeanSettings(job="bridges", name="bridges"))
    with pytest.raises(JobMismatchError, match="not the first 3 of"):
        compute(DOCUMENTS[1:])
    assert compute().documents == 40


def test_blank_corpus_has_a_record_without_a_mean(compute):
    record = compute([Document("blank", " "), Document("empty", "")])
    assert (record.documents, record.id) == (0, "")
    assert [(one.reason, one.documents) for one in record.skipped] == [("INVALID_ARGUMENT", 2)]
    assert compute.store.records() == []


# Made anew in the test: the traceback of a raised one would keep the host, and its thread, alive.
@pytest.mark.parametrize(
    ("kind", "argument"), [(DoesNotFitError, 9), (EngineError, "RuntimeError")]
)
def test_failing_engine_sums_nothing(host, compute, monkeypatch, kind, argument):
    with monkeypatch.context() as patch:
        patch.setattr(
            host.steps._runner, "_attempt", lambda documents: [kind(argument) for _ in documents]
        )
        with pytest.raises(kind):
            compute()
    assert compute().documents == 40


def test_parts_merge_to_the_whole(host):
    maker = SumMaker(host, SETTINGS)
    whole = maker(DOCUMENTS)
    first = maker(DOCUMENTS[:13])
    rest = maker(DOCUMENTS[13:], first)
    first.merge(rest)
    assert (first.next_sequence, first.corpus) == (whole.next_sequence, whole.corpus)
    assert np.array_equal(first.accumulator.counts, whole.accumulator.counts)
    assert_allclose(first.accumulator.sums, whole.accumulator.sums, rtol=1e-12, atol=1e-12)
    assert [(one.reason, one.documents) for one in first.skipped] == [("INVALID_ARGUMENT", 4)]


KILLED = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from pathlib import Path
from actvec.server.config import Limits, ModelOptions
from actvec.server.jobs.checkpoint import JobDirectory
from actvec.server.means.store import MeanStore
from actvec.shards.host import ModelHost
from actvec.shards.means import compute_mean
from tests.shards.test_means import DOCUMENTS, SETTINGS

root, save, saved = Path(sys.argv[-1]), JobDirectory.save, []
def killing(directory, progress):
    save(directory, progress)
    saved.append(progress)
    if len(saved) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
JobDirectory.save = killing
host = ModelHost.load(ModelOptions(model="demo"), root, limits=Limits(commit_seconds=0))
job = JobDirectory(root / "jobs" / "bridges")
compute_mean(host, DOCUMENTS, SETTINGS, job, MeanStore(root / "means"))
"""


def test_killed_mean_counts_documents_once(compute, served, tmp_path, tokenized, start_server):
    with pytest.raises(NotStartedError) as killed:
        start_server(str(tmp_path), program=KILLED)
    assert killed.value.code == -9
    record = compute()
    # Committed documents are not computed again.
    assert 0 < len(tokenized) < 40
    assert record.documents == 40
    ours, theirs = load(compute.store.content(record)), load(served.content)
    assert np.array_equal(ours["counts"], theirs["counts"])
    assert_allclose(ours["sums"], theirs["sums"], rtol=1e-12, atol=1e-12)


@pytest.fixture
def tokenized(host, monkeypatch):
    """The texts tokenized here."""
    texts, read = [], host.read
    monkeypatch.setattr(
        host, "read", lambda content, settings: (texts.append(content), read(content, settings))[1]
    )
    return texts
