"""The order in which means and jobs reach the disk, and the remains of a kill between two steps."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from actvec.pooling import MeanAccumulator
from actvec.server.jobs.checkpoint import FinishedJob, JobDirectory, JobState
from actvec.server.means.record import MeanRecord
from actvec.server.means.store import MeanStore
from actvec.server.model.stamp import ModelStamp
from tests.disk import Operation, recorded, remains, written_whole

MODEL = ModelStamp(model="m", revision="r", tokenizer_sha256="t", layers=(1, 2), hook="resid_post")
SETTINGS = '{"name": "first"}'


def sums(seed=0):
    accumulator = MeanAccumulator(4)
    accumulator.add(np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32))
    return accumulator


def saved(store, name, seed=0):
    return store.save(sums(seed), MeanRecord(name=name, model=MODEL))


def size_of(path):
    return path.stat().st_size


def test_a_mean_is_durable_before_its_record(tmp_path):
    store = MeanStore(tmp_path)
    with recorded() as operations:
        record = saved(store, "one")
    files = [tmp_path / f"{record.id}.{suffix}" for suffix in ("safetensors", "json")]
    folder = Operation("fsync folder", tmp_path.name)
    assert operations == [
        *written_whole(files[0].name, size_of(files[0])),
        folder,
        *written_whole(files[1].name, size_of(files[1])),
        folder,
    ]


def test_record_goes_durably_before_its_mean(tmp_path):
    store = MeanStore(tmp_path)
    record = saved(store, "one")
    with recorded() as operations:
        store.delete(record)
    assert operations == [
        Operation("unlink", f"{record.id}.json"),
        Operation("fsync folder", tmp_path.name),
        Operation("unlink", f"{record.id}.safetensors"),
    ]


def check_pairs(folder, names):
    """Check that a store that starts on a folder has exactly these means, whole."""
    store = MeanStore(folder)
    store.sweep()
    records = store.records()
    assert {record.name for record in records} == names
    for record in records:
        store.load(record)
    assert {path.stem for path in folder.iterdir()} == {record.id for record in records}


def names_in(folder):
    return {record.name for record in MeanStore(folder).records()}


def test_killed_save_leaves_the_mean_or_nothing(tmp_path):
    folder = tmp_path / "means"
    store = MeanStore(folder)
    saved(store, "one")
    found = []
    for left in remains(lambda: saved(store, "two", seed=2), folder, tmp_path / "left"):
        found.append(names_in(left))
        check_pairs(left, found[-1])
    assert [names for names in found if names not in ({"one"}, {"one", "two"})] == []
    assert found[0] == {"one"}
    assert found[-1] == {"one", "two"}


def test_killed_delete_keeps_no_half(tmp_path):
    folder = tmp_path / "means"
    store = MeanStore(folder)
    saved(store, "one")
    record = saved(store, "two", seed=2)
    found = []
    for left in remains(partial(store.delete, record), folder, tmp_path / "left"):
        found.append(names_in(left))
        check_pairs(left, found[-1])
    assert [names for names in found if names not in ({"one"}, {"one", "two"})] == []
    assert found[0] == {"one", "two"}
    assert found[-1] == {"one"}


def test_an_orphan_takes_no_room(tmp_path):
    record = saved(MeanStore(tmp_path), "one")
    (tmp_path / f"{record.id}.json").unlink()
    store = MeanStore(tmp_path, capacity=record.size_bytes)
    saved(store, "two", seed=2)
    store.sweep()
    assert not (tmp_path / f"{record.id}.safetensors").exists()


def test_sweeping_leaves_other_files_alone(tmp_path):
    (tmp_path / "mine.safetensors").write_bytes(b"not ours")
    store = MeanStore(tmp_path)
    record = saved(store, "one")
    (tmp_path / f"{record.id}.json").write_text("noise")
    store.sweep()
    assert (tmp_path / "mine.safetensors").exists()
    assert (tmp_path / f"{record.id}.safetensors").exists()


@pytest.fixture
def job(tmp_path):
    directory = JobDirectory(tmp_path / "job")
    directory.create(SETTINGS)
    directory.save(JobState(sums(), 1))
    return directory


def progress_of(folder):
    """The job as a starting server finds it."""
    directory = JobDirectory(folder)
    assert directory.settings() == SETTINGS
    return directory.load()


def test_checkpoint_is_durable_before_an_older_goes(job, tmp_path):
    job.save(JobState(sums(1), 2))
    (oldest, _) = sorted((tmp_path / "job").glob("checkpoint-*"))
    with recorded() as operations:
        job.save(JobState(sums(2), 3))
    newest = max((tmp_path / "job").glob("checkpoint-*"))
    assert operations == [
        *written_whole(newest.name, size_of(newest)),
        Operation("fsync folder", "job"),
        Operation("unlink", oldest.name),
    ]


def test_killed_job_stands_before_or_after(job, tmp_path):
    job.save(JobState(sums(1), 2))
    reached = []
    third = partial(job.save, JobState(sums(2), 3))
    for left in remains(third, tmp_path / "job", tmp_path / "left"):
        found = progress_of(left)
        assert_array_equal(found.accumulator.sums, sums(found.next_sequence - 1).sums)
        reached.append(found.next_sequence)
    assert set(reached) == {2, 3}
    assert reached == sorted(reached)


def test_killed_end_keeps_progress_or_result(job, tmp_path):
    ended = []
    for left in remains(lambda: job.finish(1, "mean"), tmp_path / "job", tmp_path / "left"):
        found = JobDirectory(left)
        assert found.settings() == SETTINGS
        finished = found.finished()
        assert finished == FinishedJob(1, "mean") or found.load().next_sequence == 1
        ended.append(finished is not None)
    assert set(ended) == {True, False}
    assert ended == sorted(ended)


def test_killed_removal_is_whole_or_none(job, tmp_path):
    """Never a job without its end that another client could resume."""
    folder = tmp_path / "job"
    (checkpoint,) = folder.glob("checkpoint-*")
    content = checkpoint.read_bytes()
    job.finish(1, "mean")
    # As left by a kill before the checkpoints were dropped.
    checkpoint.write_bytes(content)
    whole = []
    for left in remains(job.remove, folder, tmp_path / "left"):
        found = JobDirectory(left)
        whole.append(found.finished() == FinishedJob(1, "mean"))
        assert whole[-1] or (found.settings() is None and found.load() is None)
    assert whole[0]
    assert not whole[-1]
