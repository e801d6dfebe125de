"""Vectors made in this process equal those of a server, bit for bit, and so do its files."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from actvec.client import Client, Document, Failure
from actvec.client.bulk import Layout, VectorJob
from actvec.client.documents import open_documents
from actvec.client.records.settings import VectorSettings
from actvec.client.samples import sample_corpus
from actvec.server.errors import MeanNotFoundError
from actvec.shards.vectors import VectorMaker, write_vectors
from tests.conftest import NotStartedError

TEXTS = [f"In {year} the bridge was closed for {year % 7} repairs." for year in range(1700, 1740)]
DOCUMENTS = [
    *(Document(f"doc-{i}", text) for i, text in enumerate(TEXTS)),
    Document("blank", " "),
    Document("long", "word " * 5000),
    Document("half", "a \ud800 surrogate"),
    Failure("broken", "INVALID_ARGUMENT", "line 44 is no JSON", "text"),
]


@pytest.fixture(scope="module")
def served(start_server, tmp_path_factory):
    """A server with a mean, and the folder where it keeps it."""
    directory = tmp_path_factory.mktemp("data")
    server = start_server("--model=demo", data_dir=directory)
    with Client(server.target) as client:
        client.corpus_mean(sample_corpus(), job="samples")
        yield client, directory


def record(result):
    """A result without the numbers of its vector."""
    return {name: value for name, value in vars(result).items() if name != "values"}


@pytest.mark.parametrize("mode", ["short", "long"])
@pytest.mark.parametrize("center", [None, "latest"])
def test_results_equal_the_servers(served, make_host, demo_engine, mode, center):
    client, directory = served
    maker = VectorMaker(make_host(demo_engine, directory), VectorSettings(mode=mode, center=center))
    made = sorted(maker(DOCUMENTS), key=lambda result: result.index)
    expected = list(client.stream(DOCUMENTS, mode=mode, center=center, ordered=True))
    assert [record(one) for one in made] == [record(one) for one in expected]
    assert sum(isinstance(one, Failure) for one in made) == 4
    for one, other in zip(made, expected, strict=True):
        if not isinstance(one, Failure):
            assert np.array_equal(one.values, other.values)


def test_truncation_is_stamped(host):
    maker = VectorMaker(host, VectorSettings(mode="short", truncation="end"))
    (made,) = maker([Document("long", "word " * 5000)])
    assert (made.truncated, made.stamp.truncation) == (True, "end")


def test_unknown_mean_is_refused(host):
    with pytest.raises(MeanNotFoundError, match="nobody"):
        VectorMaker(host, VectorSettings(mode="short", center="nobody"))


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        "\n".join(json.dumps({"id": f"doc-{i}", "text": t}) for i, t in enumerate([*TEXTS, " "]))
    )
    return path


@pytest.mark.parametrize("format_", ["files", "shards", "parquet"])
def test_folder_equals_streams(served, host, corpus, tmp_path, format_):
    source, layout = open_documents(corpus), Layout(format_)
    made, streamed = tmp_path / "made", tmp_path / "streamed"
    progress = write_vectors(host, source, made, VectorSettings(mode="short"), layout)
    job = VectorJob(source, streamed, mode="short", layout=layout, ordered=True)
    expected = job.run(served[0])
    assert (progress.vectors, progress.failed, progress.tokens) == (
        expected.vectors,
        expected.failed,
        expected.tokens,
    )
    names = [
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        for folder in (made, streamed)
    ]
    assert names[0] == names[1]
    assert (made / "errors.jsonl").read_text() == (streamed / "errors.jsonl").read_text()
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (made, streamed)]
    assert manifests[0]["stamp"] == manifests[1]["stamp"]
    if format_ == "files":
        for path in made.glob("*.safetensors"):
            assert np.array_equal(load_file(path)["vec"], load_file(streamed / path.name)["vec"])


def test_finished_folder_is_not_recomputed(host, corpus, tmp_path, monkeypatch):
    asked = (
        open_documents(corpus),
        tmp_path / "out",
        VectorSettings(mode="short"),
        Layout("shards"),
    )
    first = write_vectors(host, *asked)
    monkeypatch.setattr(host, "steps", pytest.fail)
    again = write_vectors(host, *asked)
    assert (again.vectors, again.failed) == (first.vectors, first.failed) == (40, 1)


KILLED = """
import os, signal, sys
from pathlib import Path
from actvec.client.bulk import Layout
from actvec.client.bulk.ledger import Ledger
from actvec.client.documents import open_documents
from actvec.client.records.settings import VectorSettings
from actvec.server.config import Limits, ModelOptions
from actvec.shards.host import ModelHost
from actvec.shards.vectors import write_vectors

keep, kept = Ledger.keep, []
def killing(ledger, result):
    keep(ledger, result)
    kept.append(result)
    if len(kept) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
Ledger.keep = killing
corpus, out, data = map(Path, sys.argv[-3:])
host = ModelHost.load(ModelOptions(model="demo"), data, limits=Limits(step_tokens=256))
settings = VectorSettings(mode="short")
write_vectors(host, open_documents(corpus), out, settings, Layout("shards"), save_every=0)
"""


def test_killed_folder_resumes(host, corpus, tmp_path, start_server):
    out = tmp_path / "out"
    with pytest.raises(NotStartedError) as killed:
        start_server(str(corpus), str(out), str(tmp_path / "data"), program=KILLED)
    assert killed.value.code == -9
    progress = write_vectors(
        host, open_documents(corpus), out, VectorSettings(mode="short"), Layout("shards")
    )
    assert 0 < progress.resumed_vectors + progress.resumed_failed <= 12
    rows = [
        json.loads(line)
        for path in out.glob("vectors-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert sorted(row["index"] for row in rows) == list(range(40))
