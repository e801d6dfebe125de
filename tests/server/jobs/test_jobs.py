"""Jobs whose mean is deleted, at any point of their progress."""

import pytest

from actvec.server.jobs.checkpoint import JobDirectory
from actvec.server.jobs.registry import Jobs
from actvec.server.means.replica import VolumeReplica
from actvec.server.means.store import MeanStore
from actvec.v1 import means_pb2
from tests.server.jobs.talking import TEXTS, documents, mean_of, opening, run
from tests.volume import FolderVolume


async def delete(stub, name):
    await stub.DeleteCorpusMean(means_pb2.DeleteCorpusMeanRequest(corpus_mean=name))


@pytest.mark.parametrize("settings", [{}, {"variance": True}])
async def test_job_without_its_mean_starts_again(serve, tmp_path, settings):
    async with serve() as (_, stub):
        record, _ = await mean_of(stub, TEXTS)
    # The remains of a server killed between the mean and its job.
    MeanStore(tmp_path / "means").delete(record)
    async with serve() as (_, stub):
        opened, *_, finished = await run(stub, opening(**settings), documents(TEXTS[:3]))
    assert opened.opened.next_sequence == 0
    assert finished.finished.documents == 3


def test_job_of_a_deleted_mean_leaves_the_volume(tmp_path):
    volume = FolderVolume(tmp_path / "committed", tmp_path / "mount")
    replica = VolumeReplica(tmp_path / "local", volume.mount, volume)
    folder = tmp_path / "local" / "jobs"
    for mean in ("deleted", "kept"):
        directory = JobDirectory(folder / f"of-{mean}", replica)
        directory.create("{}")
        directory.finish(3, mean)
    Jobs(folder, None, 30, replica).forget("deleted")
    assert {path.parent.name for path in volume.committed.rglob("*.json")} == {"of-kept"}


async def test_damaged_note_does_not_keep_a_deleted_job(serve, tmp_path, caplog):
    async with serve() as (_, stub):
        await mean_of(stub, TEXTS[:1], "another")
        (tmp_path / "jobs" / "another" / "finished.json").write_text("{")
        await mean_of(stub, TEXTS)
        await delete(stub, "job")
        assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["another"]
    assert "the note that job another is finished is damaged" in caplog.text
