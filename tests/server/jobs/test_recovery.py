"""Unreadable files of a job: the previous checkpoint serves, and nothing is mixed up."""

import errno
import io
import os
import pathlib
import shutil

import grpc
import numpy as np
import pytest

from actvec.pooling import MeanAccumulator
from actvec.server.errors import JobCorruptError
from actvec.server.jobs.checkpoint import JobDirectory, JobState
from tests.disk import failing_disk
from tests.server.jobs.talking import (
    TEXTS,
    assert_same,
    documents,
    finish,
    mean_of,
    opening,
    refused,
    run,
)
from tests.server.jobs.talking import tensors_of as tensors_of_mean

SETTINGS = '{"name": "first"}'


def progress(documents):
    accumulator = MeanAccumulator(4)
    for seed in range(documents):
        accumulator.add(np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32))
    return JobState(accumulator, documents)


def cut(path, _monkeypatch):
    path.write_bytes(path.read_bytes()[:-1])


def noise(path, _monkeypatch):
    path.write_bytes(b"\xff\x00\x9c" * 50)


def folder(path, _monkeypatch):
    path.unlink()
    path.mkdir()


def unreadable(path, monkeypatch):
    """Make every read of this file fail with EIO."""
    real = io.open

    def failing(file, *arguments, **options):
        if isinstance(file, str | os.PathLike) and pathlib.Path(file) == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, *arguments, **options)

    monkeypatch.setattr(io, "open", failing)


DAMAGES = pytest.mark.parametrize("damage", [cut, noise, folder, unreadable])


@pytest.fixture
def job(tmp_path):
    directory = JobDirectory(tmp_path / "job")
    directory.create(SETTINGS)
    for count in (1, 2):
        directory.save(progress(count))
    return directory


def checkpoints(tmp_path):
    return sorted((tmp_path / "job").glob("checkpoint-*"))


@pytest.mark.usefixtures("job")
@DAMAGES
def test_a_damaged_checkpoint_falls_back(tmp_path, monkeypatch, damage):
    damage(checkpoints(tmp_path)[-1], monkeypatch)
    again = JobDirectory(tmp_path / "job")
    assert again.settings() == SETTINGS
    assert again.load().next_sequence == 1


@pytest.mark.usefixtures("job")
@DAMAGES
def test_two_whole_checkpoints_are_kept_after_damage(tmp_path, monkeypatch, damage):
    """The damaged one, though it is the farthest, is not one of them."""
    with monkeypatch.context() as disk:
        damage(checkpoints(tmp_path)[-1], disk)
        again = JobDirectory(tmp_path / "job")
        again.settings()
        again.load()
        # Other documents than before, which have not come so far yet.
        for count in (1, 1):
            more = progress(count)
            more.corpus = os.urandom(32)
            again.save(more)
    whole = [path for path in checkpoints(tmp_path) if path.is_file() and "00001-" in path.name]
    assert len(whole) == 2
    for path in whole:
        shutil.copytree(tmp_path / "job", tmp_path / "copy" / "job")
        (tmp_path / "copy" / "job" / path.name).unlink()
        assert JobDirectory(tmp_path / "copy" / "job").load().next_sequence == 1
        shutil.rmtree(tmp_path / "copy")


@pytest.mark.usefixtures("job")
@DAMAGES
def test_damaged_settings_come_from_the_checkpoint(tmp_path, monkeypatch, damage):
    damage(tmp_path / "job" / "settings.json", monkeypatch)
    again = JobDirectory(tmp_path / "job")
    assert again.settings() == SETTINGS
    assert again.load().next_sequence == 2


@DAMAGES
def test_damaged_settings_come_from_the_end(job, tmp_path, monkeypatch, damage):
    job.finish(2, "mean")
    damage(tmp_path / "job" / "settings.json", monkeypatch)
    assert JobDirectory(tmp_path / "job").settings() == SETTINGS


@pytest.mark.usefixtures("job")
def test_mended_settings_are_written_again(tmp_path, monkeypatch):
    noise(tmp_path / "job" / "settings.json", monkeypatch)
    JobDirectory(tmp_path / "job").settings()
    assert (tmp_path / "job" / "settings.json").read_text() == SETTINGS


@pytest.mark.usefixtures("job")
def test_damaged_settings_without_a_copy_are_reported(tmp_path, monkeypatch):
    for path in (tmp_path / "job" / "settings.json", *checkpoints(tmp_path)):
        noise(path, monkeypatch)
    with pytest.raises(
        JobCorruptError, match=r"no checkpoint has a copy of them.*another job name"
    ):
        JobDirectory(tmp_path / "job").settings()


def test_damaged_settings_without_progress_are_none(tmp_path, monkeypatch):
    JobDirectory(tmp_path / "job").create(SETTINGS)
    noise(tmp_path / "job" / "settings.json", monkeypatch)
    assert JobDirectory(tmp_path / "job").settings() is None


@pytest.mark.usefixtures("job")
def test_checkpoint_of_other_settings_is_not_resumed(tmp_path):
    """As an interrupted removal may leave it."""
    (tmp_path / "job" / "settings.json").unlink()
    again = JobDirectory(tmp_path / "job")
    assert again.settings() is None
    again.create('{"name": "another"}')
    assert again.load() is None


@DAMAGES
def test_damaged_end_is_reported(job, tmp_path, monkeypatch, damage):
    job.finish(2, "mean")
    damage(tmp_path / "job" / "finished.json", monkeypatch)
    with pytest.raises(JobCorruptError, match="its mean is in the list of means"):
        JobDirectory(tmp_path / "job").finished()


@pytest.mark.parametrize("note", ["[]", "{}", '{"next_sequence": 2, "mean": "mean"}'])
def test_incomplete_end_is_reported(job, tmp_path, note):
    """Also if it should have been a copy of the settings."""
    (tmp_path / "job" / "finished.json").write_text(note)
    (tmp_path / "job" / "settings.json").write_text("{")
    for ask in (job.finished, job.settings):
        with pytest.raises(JobCorruptError, match="the note that job job is finished is damaged"):
            ask()


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """Damage the newest file of the job that matches a pattern."""
    return lambda damage, pattern: damage(
        max((tmp_path / "jobs" / "job").glob(pattern)), monkeypatch
    )


@pytest.mark.parametrize("pattern", ["checkpoint-*", "settings.json"])
@DAMAGES
async def test_job_with_a_damaged_file_resumes(serve, damaged, caplog, damage, pattern):
    async with serve() as (_, stub):
        _, expected = await mean_of(stub, TEXTS, "whole")
        await run(stub, opening(explicit_finish=True), documents(TEXTS[:3]))
        await run(stub, opening(explicit_finish=True), documents(TEXTS[3:6], 3))
        # It opens once the earlier documents are committed.
        await run(stub, opening(explicit_finish=True))
        damaged(damage, pattern)
        resumed = await run(stub, opening(explicit_finish=True))
        done = resumed[0].opened.next_sequence
        assert done == (6 if pattern == "settings.json" else 3)
        responses = await run(stub, opening(), documents(TEXTS[done:], done), finish(len(TEXTS)))
        assert_same(await tensors_of_mean(stub, responses[-1].finished.id), expected)
    assert "Traceback" not in caplog.text


async def test_damaged_end_is_data_loss(serve, tmp_path):
    async with serve() as (_, stub):
        await mean_of(stub, TEXTS)
        (tmp_path / "jobs" / "job" / "finished.json").write_bytes(b"\xff")
        with refused(grpc.StatusCode.DATA_LOSS, "is finished is damaged"):
            await run(stub, opening())


async def test_full_disk_is_logged_in_a_line(serve, caplog):
    async with serve() as (_, stub):
        await run(stub, opening(explicit_finish=True))
        reason = "cannot store a checkpoint of job"
        with failing_disk(), refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason):
            await run(stub, opening(), documents(TEXTS))
            # It opens again once it was released.
            await run(stub, opening(explicit_finish=True))
    errors = [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]
    assert [record.message for record in errors] == [
        "cannot store a checkpoint of job job: No space left on device"
    ]
    assert not any(record.exc_info for record in caplog.records)
