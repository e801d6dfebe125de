"""A container's view of the volume, whatever earlier containers left on its disk."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from actvec.modal.volume import Site
from actvec.pooling import MeanAccumulator
from actvec.server.errors import RequestError
from actvec.server.jobs.checkpoint import JobDirectory
from actvec.server.means.record import MeanRecord
from actvec.server.means.store import MeanStore
from tests.volume import FolderVolume


@pytest.fixture
def corpora(tmp_path):
    """The folder of corpora on the volume."""
    corpora = tmp_path / "committed" / "corpora"
    corpora.mkdir(parents=True)
    (corpora / "bridges.jsonl").write_text('{"text": "The bridge was closed."}')
    return corpora


@pytest.fixture
def sites(tmp_path, corpora):
    """Two machines."""
    return [
        Site(tmp_path / f"local-{number}", mount, FolderVolume(corpora.parent, mount))
        for number in range(2)
        for mount in [tmp_path / f"mount-{number}"]
    ]


@pytest.mark.parametrize("name", ["nothing.jsonl", "../means", "/etc/passwd"])
def test_missing_corpus_is_named(sites, name):
    with pytest.raises(RequestError, match=r"but: bridges\.jsonl"):
        sites[0].corpus(name)


def test_a_folder_is_a_corpus_too(sites, corpora):
    (corpora / "texts").mkdir()
    (corpora / "texts" / "a.txt").write_text("A text.")
    assert (sites[0].corpus("texts") / "a.txt").read_text() == "A text."


def test_corpus_has_only_its_present_files(sites, corpora):
    (corpora / "texts").mkdir()
    for name in ("a.txt", "b.txt", "c.txt"):
        (corpora / "texts" / name).write_text(name)
    sites[0].corpus("texts")
    (corpora / "texts" / "b.txt").unlink()
    # A shard is every N-th file: a missing one would shift those behind it.
    assert sorted(path.name for path in sites[0].corpus("texts").iterdir()) == ["a.txt", "c.txt"]


@pytest.mark.parametrize("first", ["a file", "a folder"])
def test_corpus_may_change_its_kind(sites, corpora, first):
    as_file, as_folder = (sites[0], replace(sites[1], local=sites[0].local))
    if first == "a folder":
        as_file, as_folder = as_folder, as_file
    for kind in [first, *{"a file", "a folder"} - {first}]:
        shutil.rmtree(corpora)
        if kind == "a file":
            corpora.mkdir()
            (corpora / "texts").write_text("A text.")
            assert as_file.corpus("texts").is_file()
        else:
            (corpora / "texts").mkdir(parents=True)
            (corpora / "texts" / "a.txt").write_text("A text.")
            assert as_folder.corpus("texts").is_dir()


def store_of(site):
    """The means of a container that starts, or restarts, on the same disk."""
    return MeanStore(site.local / "means", replica=site.replica())


def save(store, name):
    accumulator = MeanAccumulator(4)
    accumulator.add(np.full((3, 4), len(name), np.float32))
    return store.save(accumulator, MeanRecord(name=name))


def test_deleted_mean_does_not_return(sites):
    here, elsewhere = sites
    save(store_of(here), "first")
    store = store_of(elsewhere)
    (first,) = store.records()
    store.delete(first)
    assert store_of(here).records() == []
    save(store_of(here), "second")
    assert [record.name for record in store_of(elsewhere).records()] == ["second"]


def test_what_was_not_pushed_was_never_promised(sites):
    site = sites[0]
    folder = site.local / "jobs" / "a"
    JobDirectory(folder, site.replica()).create('{"of": "a job"}')
    # As left by a process that was killed before its push.
    JobDirectory(folder).finish(3, "mean")
    job = JobDirectory(folder, site.replica())
    job.refresh()
    assert (job.settings(), job.finished()) == ('{"of": "a job"}', None)
