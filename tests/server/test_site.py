"""What a container finds on the volume, whatever is left on its disk from before."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from actvec.pooling import MeanAccumulator
from actvec.server.errors import RequestError
from actvec.server.means.checkpoint import JobDirectory
from actvec.server.means.store import MeanStore
from actvec.server.site import Site
from actvec.v1.means_pb2 import CorpusMean

from ..volume import FolderVolume


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
def test_a_corpus_that_is_not_there_is_said_with_those_that_are(sites, name):
    with pytest.raises(RequestError, match=r"but: bridges\.jsonl"):
        sites[0].corpus(name)


def test_a_folder_is_a_corpus_too(sites, corpora):
    (corpora / "texts").mkdir()
    (corpora / "texts" / "a.txt").write_text("A text.")
    assert (sites[0].corpus("texts") / "a.txt").read_text() == "A text."


def test_a_corpus_is_what_it_is_now_and_nothing_of_what_it_was(sites, corpora):
    (corpora / "texts").mkdir()
    for name in ("a.txt", "b.txt", "c.txt"):
        (corpora / "texts" / name).write_text(name)
    sites[0].corpus("texts")
    (corpora / "texts" / "b.txt").unlink()
    # A shard is every N-th file: one that is gone would shift those behind it.
    assert sorted(path.name for path in sites[0].corpus("texts").iterdir()) == ["a.txt", "c.txt"]


@pytest.mark.parametrize("first", ["a file", "a folder"])
def test_a_corpus_may_take_the_place_of_another_kind_of_the_same_name(sites, corpora, first):
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
    """The means of a container that begins, or begins anew, on the same disk."""
    return MeanStore(site.local / "means", replica=site.replica())


def save(store, name):
    accumulator = MeanAccumulator(4)
    accumulator.add(np.full((3, 4), len(name), np.float32))
    return store.save(accumulator, CorpusMean(name=name))


def test_a_mean_that_another_machine_deleted_does_not_come_back_from_a_disk(sites):
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
    # As by a process that is killed before it comes to push.
    JobDirectory(folder).finish(3, "mean")
    job = JobDirectory(folder, site.replica())
    job.refresh()
    assert (job.settings(), job.finished()) == ('{"of": "a job"}', None)
