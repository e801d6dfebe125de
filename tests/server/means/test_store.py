"""The store of means: whole, checked, exact; and checkpoints that outlive damage."""

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load, save

from actvec.pooling import MeanAccumulator
from actvec.server.errors import (
    InputError,
    JobCorruptError,
    MeanCorruptError,
    MeanMismatchError,
    MeanNotFoundError,
    StorageError,
)
from actvec.server.jobs.checkpoint import EMPTY_CORPUS, FinishedJob, JobDirectory, JobState
from actvec.server.means.naming import checked_name
from actvec.server.means.record import MeanRecord, SkippedDocuments
from actvec.server.means.record_json import encode_record
from actvec.server.means.store import MeanStore
from actvec.server.model.stamp import ModelStamp

D = 6
SETTINGS = '{"name": "first"}'
MODEL = ModelStamp(model="m", revision="r", tokenizer_sha256="t", layers=(1, 2), hook="resid_post")
OTHER = ModelStamp(model="m", revision="r", tokenizer_sha256="t", layers=(2, 3), hook="resid_post")


@pytest.fixture
def store(tmp_path):
    return MeanStore(tmp_path / "means")


def accumulated(lengths=(3, 5), seed=0, *, variance=False):
    accumulator = MeanAccumulator(D, variance=variance)
    random = np.random.default_rng(seed)
    for length in lengths:
        accumulator.add(random.normal(size=(length, D)).astype(np.float32))
    return accumulator


def stored(store, name="first", model=MODEL, **options):
    record = MeanRecord(name=name, model=model, prepend_bos=True)
    return store.save(accumulated(**options), record)


def test_mean_is_found_by_id_name_and_latest(store):
    record = stored(store)
    for name in (record.id, "first", "latest"):
        assert store.find(name, MODEL) == record
    assert (record.documents, record.tokens, record.max_tokens, record.d_model) == (2, 8, 5, D)
    with pytest.raises(MeanNotFoundError, match="no corpus mean 'second'; there are: first"):
        store.find("second", MODEL)


def test_file_has_the_documented_layout(store, tmp_path):
    record = stored(store, variance=True)
    tensors = load((tmp_path / "means" / f"{record.id}.safetensors").read_bytes())
    expected = accumulated(variance=True)
    assert_array_equal(tensors["corpus_mean"], expected.mean().T)
    assert tensors["corpus_mean"].dtype == np.float32
    assert_array_equal(tensors["counts"], expected.counts)
    assert tensors["counts"].dtype == np.int64
    assert record.has_counts
    assert_array_equal(tensors["corpus_variance"], expected.variance().T)


def test_latest_is_the_newest_that_fits(store):
    ours, newer = stored(store, "ours"), stored(store, "newer", seed=1)
    stored(store, "theirs", model=OTHER, seed=2)
    assert store.find("latest", MODEL) == newer
    store.delete(newer)
    assert store.find("latest", MODEL) == ours
    store.delete(ours)
    with pytest.raises(MeanNotFoundError, match="of this model and these layers"):
        store.find("latest", MODEL)


def test_equal_sums_are_the_same_mean(store):
    assert stored(store).id == stored(store).id
    assert len(store.records()) == 1


@pytest.mark.parametrize("damage", ["cut", "altered", "removed"])
def test_damaged_file_is_never_used(store, tmp_path, damage):
    record = stored(store)
    path = tmp_path / "means" / f"{record.id}.safetensors"
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else content[:-1] + b"\x99")
    advice = "" if damage == "removed" else ".*delete it and compute or upload it again"
    with pytest.raises(MeanCorruptError, match=record.id + advice):
        store.load(record)
    with pytest.raises(MeanCorruptError):
        store.merge([record, stored(store, "second", seed=1)], "both")


def test_half_written_files_are_removed(tmp_path):
    (tmp_path / "means").mkdir()
    (tmp_path / "means" / ".partial-x").write_bytes(b"half")
    assert MeanStore(tmp_path / "means").records() == []
    assert list((tmp_path / "means").iterdir()) == []


def test_merging_is_exact(store):
    one, other = stored(store, "one"), stored(store, "other", lengths=(7, 2), seed=1)
    merged = store.merge([one, other], "both")
    total = accumulated()
    total.merge(accumulated((7, 2), seed=1))
    found = store.load(merged)
    assert_array_equal(found.accumulator.sums, total.sums)
    assert_array_equal(found.counts, total.counts)
    assert (merged.name, merged.documents) == ("both", 4)


def test_foreign_file_is_stored_unchanged(store, tmp_path):
    content = save({"corpus_mean": np.ones((D, 4), np.float32)})
    record = store.upload("foreign", content, D)
    assert (tmp_path / "means" / f"{record.id}.safetensors").read_bytes() == content
    assert (record.has_counts, record.max_tokens, record.documents) == (False, 4, 0)
    assert_array_equal(store.load(record).mean, np.ones((4, D)))
    with pytest.raises(MeanNotFoundError):
        store.find("latest", MODEL)
    with pytest.raises(MeanMismatchError, match="no sums and counts"):
        store.merge([record, record], "both")


@pytest.mark.parametrize("kept", [True, False])
def test_uploaded_mean_has_its_own_moments(store, kept):
    ours = accumulated(variance=True)
    tensors = {
        "corpus_mean": np.ascontiguousarray(ours.mean().T),
        "counts": ours.counts,
        "sums": ours.sums,
    }
    if kept:
        tensors["square_sums"] = ours.squares
    says = json.dumps(
        encode_record(MeanRecord(model=MODEL, prepend_bos=True, has_variance=not kept))
    )
    record = store.upload("theirs", save(tensors, metadata={"actvec": says}), D)
    assert record.has_variance == kept
    merged = store.merge([record, stored(store, seed=1, variance=True)], "both")
    assert (merged.has_variance, merged.documents) == (kept, 4)


def test_one_file_has_one_name(store):
    content = save({"corpus_mean": np.ones((D, 4), np.float32)})
    record = store.upload("foreign", content, D)
    assert store.upload("foreign", content, D).id == record.id
    with pytest.raises(MeanMismatchError, match=r"has this file already, as mean .* \(foreign\)"):
        store.upload("other", content, D)


def with_sums(sums, counts=(1, 1)):
    mean = np.ones((D, 2), np.float32)
    return save({"corpus_mean": mean, "counts": np.array(counts), "sums": sums})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a safetensors file"),
        (b"\xff" * 100, "not a safetensors file"),
        (save({"mean": np.ones((D, 4), np.float32)}), "needs a tensor corpus_mean"),
        (save({"corpus_mean": np.ones((D, 4))}), "it has float64"),
        (save({"corpus_mean": np.ones((D, 4, 1), np.float32)}), "this model has 6"),
        (save({"corpus_mean": np.ones((D,), np.float32)}), r"it has float32 \[6\]"),
        (save({"corpus_mean": np.ones((2, D, 4), np.float32)}), "of 2 separate layers, and a rec"),
        (save({"corpus_mean": np.full((D, 4), np.nan, np.float32)}), "not finite"),
        (save({"corpus_mean": np.ones((D + 1, 4), np.float32)}), "this model has 6"),
        (
            save({"corpus_mean": np.ones((D, 2), np.float32), "counts": np.array([1, 2])}),
            "never increasing",
        ),
        (
            save({"corpus_mean": np.ones((D, 3), np.float32), "counts": np.array([3, 1, 2])}),
            "never increasing",
        ),
        (
            save({"corpus_mean": np.ones((D, 2), np.float32)}, metadata={"actvec": "{nope"}),
            "not a record",
        ),
        (with_sums(np.array(0.0)), r"sums that are not finite numbers, float64 \[2, 6\]"),
        (with_sums(np.full((2, D), np.nan)), "sums that are not finite"),
        (with_sums(np.ones((2, D), np.float32)), "sums that are not finite numbers, float64"),
        (with_sums(np.full((2, D), 7.0)), "that do not match its corpus_mean"),
        (with_sums(np.full((2, D), 1.001)), "that do not match its corpus_mean"),
        (with_sums(np.ones((2, D)), counts=np.array([1.0, np.nan])), "not 2 integers"),
        (with_sums(np.ones((2, D)), counts=np.array([2**62, 2**62])), "not 2 integers"),
    ],
)
def test_unfit_file_is_refused(store, content, complaint):
    with pytest.raises(InputError, match=f"^file: .*{complaint}"):
        store.upload("bad", content, D)
    assert store.records() == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "latest", "-x", "ä", "x" * 65])
def test_a_name_is_never_a_path(name):
    with pytest.raises(InputError, match="name: is"):
        checked_name(name)


def test_full_disk_leaves_the_store_whole(tmp_path):
    # A process whose files may not exceed 4 KiB: the kernel refuses as a full disk does.
    program = f"""
import signal, resource, numpy as np
from actvec.pooling import MeanAccumulator
from actvec.server.errors import StorageFullError
from actvec.server.means.store import MeanStore
from actvec.server.means.record import MeanRecord
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = MeanStore(__import__("pathlib").Path({str(tmp_path)!r}))
mean = MeanAccumulator({D}); mean.add(np.ones((2, {D})))
store.save(mean, MeanRecord(name="small"))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
mean = MeanAccumulator({D}); mean.add(np.ones((500, {D})))
try:
    store.save(mean, MeanRecord(name="large"))
except StorageFullError as error:
    print(error)
"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert "cannot store mean large: File too large" in output
    assert [record.name for record in MeanStore(tmp_path).records()] == ["small"]
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".partial")]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


class TestCheckpoints:
    @pytest.fixture
    def directory(self, tmp_path):
        directory = JobDirectory(tmp_path / "job")
        directory.create(SETTINGS)
        return directory

    @staticmethod
    def progress(documents):
        progress = JobState(accumulated([3] * documents), documents + 1, bytes([documents]) * 32)
        progress.skip("INVALID_ARGUMENT", "blank", "d0")
        return progress

    def test_a_new_job_has_none(self, directory):
        assert directory.settings() == SETTINGS
        assert directory.load() is None
        assert directory.finished() is None

    def test_newest_checkpoint_loads_as_saved(self, directory):
        directory.save(self.progress(1))
        directory.save(self.progress(2))
        found = directory.load()
        assert (found.next_sequence, found.corpus) == (3, bytes([2]) * 32)
        assert found.skipped == (SkippedDocuments("INVALID_ARGUMENT", 1, "blank", "d0"),)
        assert_array_equal(found.accumulator.sums, accumulated([3, 3]).sums)

    @pytest.mark.parametrize("damage", [b"", b"rubbish", None])
    def test_previous_checkpoint_replaces_a_damaged_one(self, directory, tmp_path, damage):
        for documents in (1, 2, 3):
            directory.save(self.progress(documents))
        paths = sorted((tmp_path / "job").glob("checkpoint-*"))
        assert len(paths) == 2
        paths[-1].write_bytes(paths[-1].read_bytes()[:-1] if damage is None else damage)
        assert directory.load().next_sequence == 3

    def test_a_finished_job_keeps_no_checkpoint(self, directory, tmp_path):
        directory.save(self.progress(1))
        directory.finish(2, "mean")
        assert directory.finished() == FinishedJob(2, "mean")
        assert not list((tmp_path / "job").glob("checkpoint-*"))

    def test_damaged_note_is_reported(self, directory, tmp_path):
        (tmp_path / "job" / "finished.json").write_text("{")
        with pytest.raises(JobCorruptError, match="job job is finished is damaged"):
            directory.finished()

    def test_unwritable_directory_is_an_error(self, tmp_path):
        (tmp_path / "job").write_text("a file where the directory should be")
        with pytest.raises(StorageError, match="cannot store job job"):
            JobDirectory(tmp_path / "job").create(SETTINGS)

    def test_parts_of_progress_add_up(self):
        whole = JobState(MeanAccumulator(D))
        assert whole.corpus == EMPTY_CORPUS
        whole.merge(self.progress(1))
        later = self.progress(2)
        later.next_sequence = 9
        whole.merge(later)
        assert whole.next_sequence == 9
        assert whole.skipped == (SkippedDocuments("INVALID_ARGUMENT", 2, "blank", "d0"),)
        assert_allclose(whole.accumulator.documents, 3)
