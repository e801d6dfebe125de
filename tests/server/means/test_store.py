"""The store of means: whole, checked, exact; and checkpoints that outlive damage."""

import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from google.protobuf.json_format import MessageToJson
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load, save

from actvec.pooling import MeanAccumulator
from actvec.server.errors import (
    JobCorruptError,
    MeanCorruptError,
    MeanMismatchError,
    MeanNotFoundError,
    RequestError,
    StorageError,
)
from actvec.server.means.checkpoint import EMPTY_CORPUS, FinishedJob, JobDirectory, Progress
from actvec.server.means.store import MeanStore, checked_name
from actvec.v1.means_pb2 import CorpusMean
from actvec.v1.vectors_pb2 import TRUNCATION_KEEP_START, ModelStamp

D = 6
SETTINGS = '{"name": "first"}'
MODEL = ModelStamp(model="m", revision="r", tokenizer_sha256="t", layers=[1, 2], hook="resid_post")
OTHER = ModelStamp(model="m", revision="r", tokenizer_sha256="t", layers=[2, 3], hook="resid_post")


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
    record = CorpusMean(name=name, model=model, prepend_bos=True)
    return store.save(accumulated(**options), record)


def test_a_stored_mean_is_found_by_id_by_name_and_as_latest(store):
    record = stored(store)
    for name in (record.id, "first", "latest"):
        assert store.find(name, MODEL) == record
    assert (record.documents, record.tokens, record.max_tokens, record.d_model) == (2, 8, 5, D)
    with pytest.raises(MeanNotFoundError, match="no corpus mean 'second'; there are: first"):
        store.find("second", MODEL)


def test_its_file_has_the_layout_that_other_tools_read(store, tmp_path):
    record = stored(store, variance=True)
    tensors = load((tmp_path / "means" / f"{record.id}.safetensors").read_bytes())
    expected = accumulated(variance=True)
    assert_array_equal(tensors["corpus_mean"], expected.mean().T)
    assert tensors["corpus_mean"].dtype == np.float32
    assert_array_equal(tensors["counts"], expected.counts)
    assert tensors["counts"].dtype == np.int64
    assert_array_equal(tensors["corpus_variance"], expected.variance().T)


def test_latest_is_the_newest_of_the_same_model_and_layers(store):
    ours, newer = stored(store, "ours"), stored(store, "newer", seed=1)
    stored(store, "theirs", model=OTHER, seed=2)
    assert store.find("latest", MODEL) == newer
    store.delete(newer)
    assert store.find("latest", MODEL) == ours
    store.delete(ours)
    with pytest.raises(MeanNotFoundError, match="of this model and these layers"):
        store.find("latest", MODEL)


def test_the_same_sums_and_record_are_the_same_mean(store):
    assert stored(store).id == stored(store).id
    assert len(store.records()) == 1


@pytest.mark.parametrize("damage", ["cut", "altered", "removed"])
def test_a_damaged_file_is_reported_and_never_used(store, tmp_path, damage):
    record = stored(store)
    path = tmp_path / "means" / f"{record.id}.safetensors"
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else content[:-1] + b"\x99")
    with pytest.raises(MeanCorruptError, match=record.id):
        store.load(record)
    with pytest.raises(MeanCorruptError):
        store.merge([record, stored(store, "second", seed=1)], "both")


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
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


def test_means_of_other_layers_or_settings_do_not_merge(store):
    one = stored(store, "one")
    with pytest.raises(MeanMismatchError, match="other models, layers or settings"):
        store.merge([one, stored(store, "two", model=OTHER)], "both")
    without_bos = store.save(
        accumulated(seed=3), CorpusMean(name="no-bos", model=MODEL, prepend_bos=False)
    )
    with pytest.raises(MeanMismatchError, match="other models, layers or settings"):
        store.merge([one, without_bos], "both")
    kept_start = CorpusMean(
        name="start", model=MODEL, prepend_bos=True, truncation=TRUNCATION_KEEP_START
    )
    with pytest.raises(MeanMismatchError, match="other models, layers or settings"):
        store.merge([one, store.save(accumulated(seed=4), kept_start)], "both")


def test_a_foreign_file_is_stored_as_it_is_but_does_not_merge_nor_become_latest(store, tmp_path):
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
def test_an_uploaded_mean_has_the_second_moments_that_its_file_has_whatever_it_says(store, kept):
    ours = accumulated(variance=True)
    tensors = {
        "corpus_mean": np.ascontiguousarray(ours.mean().T),
        "counts": ours.counts,
        "sums": ours.sums,
    }
    if kept:
        tensors["square_sums"] = ours.squares
    says = MessageToJson(CorpusMean(model=MODEL, prepend_bos=True, has_variance=not kept))
    record = store.upload("theirs", save(tensors, metadata={"actvec": says}), D)
    assert record.has_variance == kept
    merged = store.merge([record, stored(store, seed=1, variance=True)], "both")
    assert (merged.has_variance, merged.documents) == (kept, 4)


def test_one_file_has_one_name(store):
    content = save({"corpus_mean": np.ones((D, 4), np.float32)})
    record = store.upload("foreign", content, D)
    assert store.upload("foreign", content, D).id == record.id
    with pytest.raises(MeanMismatchError, match=r"here already, as mean .* \(foreign\)"):
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
        (save({"corpus_mean": np.ones((D, 4, 1), np.float32)}), r"\[6, 4, 1\]"),
        (save({"corpus_mean": np.full((D, 4), np.nan, np.float32)}), "not finite"),
        (save({"corpus_mean": np.ones((D + 1, 4), np.float32)}), "this model has 6"),
        (
            save({"corpus_mean": np.ones((D, 2), np.float32), "counts": np.array([1, 2])}),
            "never increasing",
        ),
        (
            save({"corpus_mean": np.ones((D, 2), np.float32)}, metadata={"actvec": "{nope"}),
            "not a record",
        ),
        (with_sums(np.array(0.0)), r"sums that are not finite numbers, float64 \[2, 6\]"),
        (with_sums(np.full((2, D), np.nan)), "sums that are not finite"),
        (with_sums(np.ones((2, D), np.float32)), "sums that are not finite numbers, float64"),
        (with_sums(np.full((2, D), 7.0)), "of another mean than its corpus_mean"),
        (with_sums(np.ones((2, D)), counts=np.array([1.0, np.nan])), "not 2 whole numbers"),
        (with_sums(np.ones((2, D)), counts=np.array([2**62, 2**62])), "not 2 whole numbers"),
    ],
)
def test_a_file_that_is_no_mean_of_this_width_is_refused(store, content, complaint):
    with pytest.raises(RequestError, match=complaint):
        store.upload("bad", content, D)
    assert store.records() == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "latest", "-x", "ä", "x" * 65])
def test_a_name_is_never_a_path(name):
    with pytest.raises(RequestError, match="field: is"):
        checked_name("field", name)


def test_a_full_disk_is_an_error_of_the_call_and_the_store_stays_whole(tmp_path):
    # A process whose files may not grow beyond 4 KiB: the kernel refuses as a full disk does.
    program = f"""
import signal, resource, numpy as np
from actvec.pooling import MeanAccumulator
from actvec.server.errors import StorageFullError
from actvec.server.means.store import MeanStore
from actvec.v1.means_pb2 import CorpusMean
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = MeanStore(__import__("pathlib").Path({str(tmp_path)!r}))
mean = MeanAccumulator({D}); mean.add(np.ones((2, {D})))
store.save(mean, CorpusMean(name="small"))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
mean = MeanAccumulator({D}); mean.add(np.ones((500, {D})))
try:
    store.save(mean, CorpusMean(name="large"))
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
        progress = Progress(accumulated([3] * documents), documents + 1, bytes([documents]) * 32)
        progress.skip("INVALID_ARGUMENT", "blank", "d0")
        return progress

    def test_a_new_job_has_none(self, directory):
        assert directory.settings() == SETTINGS
        assert directory.load() is None
        assert directory.finished() is None

    def test_the_newest_is_loaded_as_it_was_saved(self, directory):
        directory.save(self.progress(1))
        directory.save(self.progress(2))
        found = directory.load()
        assert (found.next_sequence, found.corpus) == (3, bytes([2]) * 32)
        assert vars(found.skipped["INVALID_ARGUMENT"]) == {
            "documents": 1,
            "first_message": "blank",
            "first_id": "d0",
        }
        assert_array_equal(found.accumulator.sums, accumulated([3, 3]).sums)

    @pytest.mark.parametrize("damage", [b"", b"rubbish", None])
    def test_the_one_before_is_used_where_the_newest_is_damaged(self, directory, tmp_path, damage):
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

    def test_a_damaged_note_of_the_end_is_reported(self, directory, tmp_path):
        (tmp_path / "job" / "finished.json").write_text("{")
        with pytest.raises(JobCorruptError, match="job job is finished is damaged"):
            directory.finished()

    def test_a_directory_that_cannot_be_written_is_an_error_of_the_call(self, tmp_path):
        (tmp_path / "job").write_text("a file where the directory should be")
        with pytest.raises(StorageError, match="cannot store job job"):
            JobDirectory(tmp_path / "job").create(SETTINGS)

    def test_parts_of_progress_add_up(self):
        whole = Progress(MeanAccumulator(D))
        assert whole.corpus == EMPTY_CORPUS
        whole.merge(self.progress(1))
        later = self.progress(2)
        later.next_sequence = 9
        whole.merge(later)
        assert whole.next_sequence == 9
        assert whole.skipped["INVALID_ARGUMENT"].documents == 2
        assert_allclose(whole.accumulator.documents, 3)
