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
from tests.disk import Operation, killed, recorded, written_whole

MODEL = ModelStamp(model="m", revision="r", tokenizer_sha256="t", layers=(1, 2), hook="resid_post")
SETTINGS = '{"name": "first"}'


def sums(seed=0):
    accumulator = MeanAccumulator(4)
    accumulator.add(np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32))
    return accumulator


def saved(store, name, seed=0):
    return store.save(sums(seed), MeanRecord(name=name, model=MODEL))


def moments(action):
    """Run an action again and again, killed one operation later each time, until it ends."""
    before = 0
    while killed(action, before):
        yield before
        before += 1
    assert before > 0


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


def test_killed_save_leaves_the_mean_or_nothing(tmp_path):
    store = MeanStore(tmp_path)
    saved(store, "one")
    for _ in moments(lambda: saved(store, "two", seed=2)):
        found = {record.name for record in MeanStore(tmp_path).records()}
        assert found in ({"one"}, {"one", "two"})
        check_pairs(tmp_path, found)
        for record in store.records():
            if record.name == "two":
                store.delete(record)
    check_pairs(tmp_path, {"one", "two"})


def test_killed_delete_keeps_no_half(tmp_path):
    store = MeanStore(tmp_path)
    saved(store, "one")
    record = saved(store, "two", seed=2)
    for _ in moments(partial(store.delete, record)):
        found = {record.name for record in MeanStore(tmp_path).records()}
        assert found in ({"one"}, {"one", "two"})
        check_pairs(tmp_path, found)
        saved(store, "two", seed=2)
    check_pairs(tmp_path, {"one"})


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


def progress_of(tmp_path):
    """The job as a starting server finds it."""
    directory = JobDirectory(tmp_path / "job")
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


def test_job_killed_in_a_commit_stands_before_or_after(job, tmp_path):
    job.save(JobState(sums(1), 2))
    for _ in moments(lambda: job.save(JobState(sums(2), 3))):
        found = progress_of(tmp_path)
        assert_array_equal(found.accumulator.sums, sums(found.next_sequence - 1).sums)
        assert found.next_sequence in {2, 3}
        for path in (tmp_path / "job").glob("checkpoint-*3-*"):
            path.unlink()
        job.save(JobState(sums(1), 2))
    assert progress_of(tmp_path).next_sequence == 3


def test_job_killed_at_its_end_has_progress_or_the_end(tmp_path):
    ended = set()
    for before in range(10):
        job = JobDirectory(tmp_path / str(before))
        job.create(SETTINGS)
        job.save(JobState(sums(), 1))
        was_killed = killed(lambda job=job: job.finish(1, "mean"), before)
        found = JobDirectory(tmp_path / str(before))
        assert found.settings() == SETTINGS
        finished = found.finished()
        assert finished == FinishedJob(1, "mean") or found.load().next_sequence == 1
        ended.add(finished is not None)
        if not was_killed:
            break
    assert ended == {True, False}


def test_job_killed_in_its_removal_is_whole_or_gone(tmp_path):
    """Never a job without its end that another client could resume."""
    for before in range(10):
        job = JobDirectory(tmp_path / str(before))
        job.create(SETTINGS)
        job.save(JobState(sums(), 1))
        (checkpoint,) = (tmp_path / str(before)).glob("checkpoint-*")
        content = checkpoint.read_bytes()
        job.finish(1, "mean")
        # As left by a kill before the checkpoints were dropped.
        checkpoint.write_bytes(content)
        was_killed = killed(job.remove, before)
        found = JobDirectory(tmp_path / str(before))
        assert found.finished() == FinishedJob(1, "mean") or (
            found.settings() is None and found.load() is None
        )
        if not was_killed:
            break
    assert not was_killed
