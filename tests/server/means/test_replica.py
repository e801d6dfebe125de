"""A data directory shared through a volume: nothing is lost, half visible or undone."""

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
from actvec.server.engine import memory
from actvec.server.errors import MeanNotFoundError, StorageError
from actvec.server.jobs.checkpoint import FinishedJob, JobDirectory, JobState
from actvec.server.means.record import MeanRecord
from actvec.server.means.replica import VolumeReplica
from actvec.server.means.store import MeanStore
from actvec.server.model.stamp import ModelStamp
from actvec.server.program.engines import DrivenEngine, engine_thread
from actvec.server.program.server import Server
from tests.server.conftest import measured_bytes
from tests.volume import FolderVolume
from tests.waiting import eventually

MODEL = ModelStamp(model="m", revision="r", tokenizer_sha256="t", layers=(1, 2), hook="resid_post")
SETTINGS = '{"name": "first"}'
OTHER_SETTINGS = '{"name": "second"}'
TEXTS = [f"In {year} the bridge was closed for repairs." for year in range(1700, 1760)]


class Machine:
    """A worker's disk, its mount of the volume, and its files there."""

    def __init__(self, root, number):
        self.local = root / f"local-{number}"
        self.volume = FolderVolume(root / "committed", root / f"mount-{number}")
        self.replica = VolumeReplica(self.local, self.volume.mount, self.volume)
        self.store = MeanStore(self.local / "means", replica=self.replica)

    def save(self, name, seed=0):
        accumulator = MeanAccumulator(4)
        accumulator.add(np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32))
        return self.store.save(accumulator, MeanRecord(name=name, model=MODEL))

    def names(self):
        return sorted(record.name for record in self.store.records())


@pytest.fixture
def machines(tmp_path):
    return [Machine(tmp_path, number) for number in range(2)]


def test_mean_is_shared_byte_for_byte(machines):
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


def test_deleted_mean_is_gone_for_all(machines):
    one, other = machines
    one.save("first")
    other.store.delete(other.store.find("first", MODEL))
    with pytest.raises(MeanNotFoundError):
        one.store.find("first", MODEL)
    assert list(one.volume.committed.rglob("*.*")) == []


def test_local_id_needs_no_look_elsewhere(machines):
    one, _ = machines
    saved = one.save("first")
    reloads = one.volume.reloads
    one.store.find(saved.id, MODEL)
    assert one.volume.reloads == reloads


def test_record_never_precedes_its_file(machines, monkeypatch):
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


def test_pulled_record_never_precedes_its_file(machines, monkeypatch):
    one, other = machines
    one.save("first")
    copy = shutil.copyfile
    alone = []

    def copy_and_look(source, target):
        copy(source, target)
        records = other.local.rglob("*.json")
        alone.extend(one for one in records if not one.with_suffix(".safetensors").exists())

    monkeypatch.setattr(shutil, "copyfile", copy_and_look)
    assert other.names() == ["first"]
    assert alone == []


def test_failed_push_comes_with_the_next(machines):
    one, other = machines
    one.volume.fails = True
    with pytest.raises(StorageError, match="the volume is away; the next write tries again"):
        one.save("first", seed=1)
    assert other.names() == []
    one.volume.fails = False
    one.save("second", seed=2)
    assert other.names() == ["first", "second"]


def test_hidden_means_are_an_error(machines):
    one, other = machines
    one.save("first")
    other.volume.fails = True
    with pytest.raises(StorageError, match="cannot see what other workers have stored"):
        other.store.find("latest", MODEL)


def test_job_resumes_on_another_worker(machines):
    one, other = machines
    job = JobDirectory(one.local / "jobs" / "a", one.replica)
    job.create(SETTINGS)
    accumulator = MeanAccumulator(4)
    for count in (1, 2, 3):
        accumulator.add(np.full((count, 4), count, dtype=np.float32))
        job.save(JobState(accumulator, count))
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


def test_restarted_job_is_new_everywhere(machines):
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
def serve(demo_model, demo_engine, monkeypatch):
    """Serve on a machine; yield a client of it."""
    monkeypatch.setattr(memory, "token_bytes", measured_bytes)

    @asynccontextmanager
    async def serve(machine, **settings):
        config = ServerConfig(
            port=0, data_dir=machine.local, limits=Limits(commit_seconds=0.05, step_tokens=256)
        )
        thread = engine_thread()
        engines = [DrivenEngine(demo_engine, thread)]
        server = await Server.start(config, engines, demo_model, machine.replica)
        async with AsyncClient(f"127.0.0.1:{server.port}", **settings) as client:
            try:
                yield client, server
            finally:
                await server.stop(30)
                thread.shutdown()

    return serve


async def test_mean_centers_at_another_worker(serve, machines):
    async with serve(machines[0]) as (maker, _), serve(machines[1]) as (user, _):
        made = await maker.corpus_mean(TEXTS, job="bridges")
        vector = await user.extract(TEXTS[0], mode="short", center="latest")
        assert vector.stamp.corpus_mean_sha256 == made.sha256
        expected = await maker.extract(TEXTS[0], mode="short", center=made.id)
        assert np.array_equal(vector.values, expected.values)


@pytest.mark.parametrize("number", [0, 1])
async def test_job_without_its_mean_starts_again(serve, machines, number):
    async with serve(machines[0]) as (maker, _), serve(machines[1]) as (other, _):
        first = await maker.corpus_mean(TEXTS, job="bridges")
        await other.delete_mean("bridges")
        # The maker still has the mean on its disk, the other has never seen the job.
        again = await (maker, other)[number].corpus_mean(TEXTS[:9], job="bridges", variance=True)
        assert (again.documents, again.has_variance) == (9, True)
        assert [mean.id for mean in await maker.list_means()] == [again.id] != [first.id]
        for worker in (maker, other):
            same = await worker.corpus_mean(TEXTS[:9], job="bridges", variance=True)
            assert same.id == again.id


async def test_absent_volume_costs_a_job_nothing(serve, machines):
    volume = machines[0].volume

    async def with_a_break():
        for number, text in enumerate(TEXTS):
            yield text
            if number == 20:
                volume.fails = True
                await eventually(lambda: volume.failures)
                volume.fails = False

    async with serve(machines[0]) as (client, _):
        made = await client.corpus_mean(with_a_break(), job="shaken")
        whole = await client.corpus_mean(TEXTS, job="whole")
        assert made.documents == len(TEXTS)
        assert made.corpus_sha256 == whole.corpus_sha256


async def test_job_of_a_dead_worker_resumes_elsewhere(serve, machines):
    committed = asyncio.Event()

    def on_progress(progress):
        if progress.committed:
            committed.set()

    async def part():
        for text in TEXTS[:20]:
            yield text
        await asyncio.Event().wait()

    async with serve(machines[0], retry_for=0) as (client, server):
        job = asyncio.create_task(client.corpus_mean(part(), job="cut", on_progress=on_progress))
        async with asyncio.timeout(60):
            await committed.wait()
        # Uncommitted files are lost, as with the machine.
        machines[0].volume.fails = True
        await server.abandon()
        with pytest.raises(ServerUnavailable):
            await job
        async with serve(machines[1]) as (other, _):
            stages = []
            made = await other.corpus_mean(TEXTS, job="cut", on_progress=stages.append)
            whole = await other.corpus_mean(TEXTS, job="whole")
            assert 0 < stages[0].committed <= 20
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
TestWorkers.settings = settings(max_examples=12, stateful_step_count=15)
