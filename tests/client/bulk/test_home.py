"""A leading `~` is the home directory, in every path that a program gives."""

import pytest

from actvec.client import TlsFiles, load
from actvec.client.bulk import FileSink, ParquetSink, ShardSink, VectorJob
from actvec.client.documents import open_documents
from actvec.client.errors import InvalidArgument
from tests.client.bulk.jobs import COUNT
from tests.client.bulk.test_sinks import make_vector


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The home directory; relative paths start elsewhere."""
    here, home = tmp_path / "here", tmp_path
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    yield home
    assert not list(here.iterdir())


def test_job_reads_and_writes_at_home(client, corpus, home):
    job = VectorJob(open_documents(f"~/{corpus.name}"), "~/vectors", mode="short")
    assert job.folder == home / "vectors"
    assert job.run(client).documents == COUNT
    assert len(load("~/vectors")) == len(load(home / "vectors"))


@pytest.mark.parametrize("kind", [FileSink, ParquetSink, ShardSink])
def test_sink_writes_at_home(home, kind):
    with kind("~/vectors") as sink:
        sink.write(make_vector(0))
    assert list((home / "vectors").iterdir())


def test_unknown_user_stays_as_written(home):
    with pytest.raises(InvalidArgument, match="cannot read ~nobody-of-that-name/ca"):
        TlsFiles(ca="~nobody-of-that-name/ca.pem").credentials()
    with pytest.raises(InvalidArgument, match=f"cannot read {home}/ca.pem"):
        TlsFiles(ca="~/ca.pem").credentials()
