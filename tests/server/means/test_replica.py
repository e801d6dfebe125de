"""A data directory that workers share through a volume: nothing is lost, half seen or undone."""

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from numpy.testing import assert_allclose
from safetensors.numpy import load

from actvec.client import AsyncClient, ServerUnavailable
from actvec.pooling import MeanAccumulator
from actvec.server.config import Limits, ServerConfig
from actvec.server.errors import MeanNotFoundError, StorageError
from actvec.server.means.checkpoint import FinishedJob, JobDirectory, Progress
from actvec.server.means.replica import VolumeReplica
from actvec.server.means.store import MeanStore
from actvec.server.server import Server, engine_thread
from actvec.v1.means_pb2 import CorpusMean
from actvec.v1.vectors_pb2 import ModelStamp

from ...volume import FolderVolume

MODEL = ModelStamp(model="m", revision="r", tokenizer_sha256="t", layers=[1, 2], hook="resid_post")
SETTINGS = '{"name": "first"}'
OTHER_SETTINGS = '{"name": "second"}'
TEXTS = [f"In {year} the bridge was closed for repairs." for year in range(1700, 1760)]


class Machine:
    """A worker's disk, its mount of the volume, and what it keeps there."""

    def __init__(self, root, number):
        self.local = root / f"local-{number}"
        self.volume = FolderVolume(root / "committed", root / f"mount-{number}")
        self.replica = VolumeReplica(self.local, self.volume.mount, self.volume)
        self.store = MeanStore(self.local / "means", replica=self.replica)

    def save(self, name, seed=0):
        accumulator = MeanAccumulator(4)
        accumulator.add(np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32))
        return self.store.save(accumulator, CorpusMean(name=name, model=MODEL))

    def names(self):
        return sorted(record.name for record in self.store.records())


@pytest.fixture
def machines(tmp_path):
    return [Machine(tmp_path, number) for number in range(2)]


def test_a_mean_of_one_worker_is_found_by_the_others_byte_for_byte(machines):
    one, other = machines
    saved = one.save("first")
    for name in ("first", saved.id, "latest"):
        found = other.store.find(name, MODEL)
        assert found == saved
    assert other.store.content(found) == one.store.content(saved)


def test_latest_is_the_newest_of_all_workers(machines):
    one, other = machines
    one.save("older", seed=1)
    assert other.store.find("latest", MODEL).name == "older"
    one.save("newer", seed=2)
    assert other.store.find("latest", MODEL).name == "newer"


def test_a_mean_that_one_worker_deletes_is_gone_for_the_others(machines):
    one, other = machines
    one.save("first")
    other.store.delete(other.store.find("first", MODEL))
    with pytest.raises(MeanNotFoundError):
        one.store.find("first", MODEL)
    assert list(one.volume.committed.rglob("*.*")) == []


def test_an_id_that_is_here_is_looked_for_nowhere_else(machines):
    one, _ = machines
    saved = one.save("first")
    reloads = one.volume.reloads
    one.store.find(saved.id, MODEL)
    assert one.volume.reloads == reloads


def test_a_record_is_never_seen_without_its_file_whenever_the_volume_commits(machines, monkeypatch):
    one, other = machines
    copy = shutil.copyfile
    seen = []

    def copy_and_commit(source, target):
        """A copy in two halves, with a commit of the volume after each."""
        if not source.is_relative_to(one.local):
            copy(source, target)
            return
        content = source.read_bytes()
        for end in (len(content) // 2, len(content)):
            target.write_bytes(content[:end])
            one.volume.background_commit()
            for record in other.store.records():
                other.store.content(record)
            seen.append(other.names())

    monkeypatch.setattr(shutil, "copyfile", copy_and_commit)
    one.save("first")
    assert seen == 4 * [[]]
    assert other.names() == ["first"]


def test_what_could_not_be_made_durable_is_an_error_and_comes_with_the_next(machines):
    one, other = machines
    one.volume.fails = True
    with pytest.raises(StorageError, match="the volume is away; it is tried again with the next"):
        one.save("first", seed=1)
    assert other.names() == []
    one.volume.fails = False
    one.save("second", seed=2)
    assert other.names() == ["first", "second"]


def test_means_of_others_that_cannot_be_seen_are_an_error_and_not_an_older_latest(machines):
    one, other = machines
    one.save("first")
    other.volume.fails = True
    with pytest.raises(StorageError, match="cannot see what other workers have stored"):
        other.store.find("latest", MODEL)


def test_a_job_goes_on_where_another_worker_left_it(machines):
    one, other = machines
    job = JobDirectory(one.local / "jobs" / "a", one.replica)
    job.create(SETTINGS)
    accumulator = MeanAccumulator(4)
    for count in (1, 2, 3):
        accumulator.add(np.full((count, 4), count, dtype=np.float32))
        job.save(Progress(accumulator, count))
    there = JobDirectory(other.local / "jobs" / "a", other.replica)
    there.refresh()
    assert there.settings() == SETTINGS
    progress = there.load()
    assert progress is not None
    assert progress.next_sequence == 3
    assert_allclose(progress.accumulator.sums, accumulator.sums)
    # Two checkpoints are kept, there as here.
    assert len(list(one.volume.committed.rglob("checkpoint-*"))) == 2
    there.finish(3, "mean")
    job.refresh()
    assert job.finished() == there.finished()
    assert list(one.volume.committed.rglob("checkpoint-*")) == []
    job.remove()
    assert list(one.volume.committed.rglob("*.*")) == []


def test_a_job_that_another_worker_begins_anew_is_the_new_one_everywhere(machines):
    here, there = (
        JobDirectory(machine.local / "jobs" / "a", machine.replica) for machine in machines
    )
    here.create(SETTINGS)
    here.finish(3, "first")
    there.refresh()
    there.remove()
    there.create(OTHER_SETTINGS)
    there.finish(5, "second")
    here.refresh()
    assert (here.settings(), here.finished()) == (OTHER_SETTINGS, FinishedJob(5, "second"))


@pytest.fixture
def serve(demo_model, demo_engine):
    """Serve on a machine; gives a client of it."""

    @asynccontextmanager
    async def serve(machine, **settings):
        config = ServerConfig(
            port=0, data_dir=machine.local, limits=Limits(commit_seconds=0.05, step_tokens=256)
        )
        thread = engine_thread()
        server = await Server.start(config, demo_engine, demo_model, thread, machine.replica)
        async with AsyncClient(f"127.0.0.1:{server.port}", **settings) as client:
            try:
                yield client, server
            finally:
                await server.stop(5)
                thread.shutdown()

    return serve


async def test_a_mean_made_by_one_worker_centres_at_another(serve, machines):
    async with serve(machines[0]) as (maker, _), serve(machines[1]) as (user, _):
        made = await maker.corpus_mean(TEXTS, job="bridges")
        vector = await user.extract(TEXTS[0], mode="short", center="latest")
        assert vector.stamp.corpus_mean_sha256 == made.sha256
        expected = await maker.extract(TEXTS[0], mode="short", center=made.id)
        assert np.array_equal(vector.values, expected.values)


@pytest.mark.parametrize("number", [0, 1])
async def test_a_job_whose_mean_another_worker_deleted_begins_anew(serve, machines, number):
    async with serve(machines[0]) as (maker, _), serve(machines[1]) as (other, _):
        first = await maker.corpus_mean(TEXTS, job="bridges")
        await other.delete_mean("bridges")
        # The maker has the mean on its disk still, the other has never seen the job.
        again = await (maker, other)[number].corpus_mean(TEXTS[:9], job="bridges", variance=True)
        assert (again.documents, again.has_variance) == (9, True)
        assert [mean.id for mean in await maker.list_means()] == [again.id] != [first.id]
        for worker in (maker, other):
            same = await worker.corpus_mean(TEXTS[:9], job="bridges", variance=True)
            assert same.id == again.id


async def test_a_volume_that_is_away_for_a_moment_costs_a_job_nothing(serve, machines):
    async def with_a_break():
        for number, text in enumerate(TEXTS):
            machines[0].volume.fails = 20 <= number < 40
            yield text
            await asyncio.sleep(0.02)

    async with serve(machines[0]) as (client, _):
        made = await client.corpus_mean(with_a_break(), job="shaken")
        whole = await client.corpus_mean(TEXTS, job="whole")
        assert made.documents == len(TEXTS)
        assert made.corpus_sha256 == whole.corpus_sha256


async def test_a_job_that_a_worker_takes_to_its_grave_goes_on_at_another(serve, machines):
    committed = asyncio.Event()

    def on_progress(progress):
        if progress.committed:
            committed.set()

    async def slowly():
        for text in TEXTS:
            yield text
            await asyncio.sleep(0.02)

    async with serve(machines[0], retry_for=0) as (client, server):
        job = asyncio.create_task(client.corpus_mean(slowly(), job="cut", on_progress=on_progress))
        await committed.wait()
        # What it has not committed by now is as lost as with the machine.
        machines[0].volume.fails = True
        await server.abandon()
        with pytest.raises(ServerUnavailable):
            await job
        async with serve(machines[1]) as (other, _):
            stages = []
            made = await other.corpus_mean(TEXTS, job="cut", on_progress=stages.append)
            whole = await other.corpus_mean(TEXTS, job="whole")
            assert 0 < stages[0].committed < len(TEXTS)
            assert made.documents == len(TEXTS)
            sums = [
                load((await other.download_mean(one.id)).content)["sums"] for one in (made, whole)
            ]
            assert_allclose(*sums, rtol=1e-12)


class Workers(RuleBasedStateMachine):
    """Whatever workers save, delete and look up: nobody loses or resurrects a mean."""

    def __init__(self):
        super().__init__()
        root = Path(tempfile.mkdtemp())
        self.machines = [Machine(root, number) for number in range(3)]
        self.names = set()

    @rule(number=st.integers(0, 2), seed=st.integers(0, 5))
    def save(self, number, seed):
        name = f"mean-{seed}"
        if name not in self.names:
            self.machines[number].save(name, seed)
            self.names.add(name)

    @rule(number=st.integers(0, 2), data=st.data())
    def delete(self, number, data):
        if self.names:
            name = data.draw(st.sampled_from(sorted(self.names)))
            store = self.machines[number].store
            store.delete(store.find(name, MODEL))
            self.names.remove(name)

    @rule(number=st.integers(0, 2))
    def background(self, number):
        self.machines[number].volume.background_commit()

    @invariant()
    def all_agree(self):
        for machine in self.machines:
            assert machine.names() == sorted(self.names)

    def teardown(self):
        shutil.rmtree(self.machines[0].local.parent)


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)
