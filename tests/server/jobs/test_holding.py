"""Holders of a job: one client at a time, and another only once the first is gone."""

import asyncio
import threading

import grpc
import pytest

from actvec.server.jobs.checkpoint import JobDirectory
from actvec.v1.means_pb2 import DeleteCorpusMeanRequest
from tests.server.engines import StandIn
from tests.server.jobs.talking import (
    TEXTS,
    answers,
    documents,
    opening,
    refused,
    run,
)
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def prompt_progress(monkeypatch):
    monkeypatch.setattr("actvec.server.service.mean_stream._PROGRESS_SECONDS", 0.01)


async def hold(stub, **settings):
    call = stub.StreamCorpusMean()
    await call.write(opening(explicit_finish=True, **settings))
    await call.read()
    return call


async def test_second_client_is_refused(serve):
    async with serve() as (_, stub):
        call = await hold(stub)
        with refused(grpc.StatusCode.ABORTED, "another client holds job job"):
            await run(stub, opening(explicit_finish=True))
        with refused(grpc.StatusCode.ABORTED, "30 s of silence another client may take it over"):
            await run(stub, opening(explicit_finish=True, take_over=True))
        call.cancel()


async def test_silent_client_loses_its_job(serve, clock):
    async with serve(lease_seconds=30) as (_, stub):
        call = await hold(stub)
        await call.write(documents(TEXTS[:3]))
        while (await call.read()).progress.documents < 3:
            pass
        clock.advance(31)
        responses = await run(stub, opening(explicit_finish=True, take_over=True))
        assert responses[0].opened.next_sequence == 3
        with refused(grpc.StatusCode.ABORTED, "was taken over by another connection"):
            assert [response async for response in answers(call)]


async def test_unread_client_is_not_silent(serve, demo_engine, clock):
    """Its documents finish one after the other."""
    steps = threading.Semaphore(0)

    def run_one(step):
        assert steps.acquire(timeout=60)
        return demo_engine.run(step)

    # A commit would wait for all documents, and report no progress meanwhile.
    limits = {"step_tokens": 1, "stream_documents": 2, "commit_seconds": 1e9}
    engine = StandIn(demo_engine, run_one)
    async with serve(engine, lease_seconds=30, **limits) as (_, stub):
        call = await hold(stub)
        await call.write(documents(["a"] * 4))
        for added in range(1, 4):
            # The client has sent nothing for 20, 40 and 60 seconds.
            clock.advance(20)
            steps.release()
            while (await call.read()).progress.documents < added:
                pass
            with refused(grpc.StatusCode.ABORTED, "another client holds job job"):
                await run(stub, opening(explicit_finish=True, take_over=True))
        steps.release()
        call.cancel()


async def test_same_holder_gets_its_job_back(serve):
    async with serve() as (_, stub):
        call = await hold(stub, holder="me")
        responses = await run(stub, opening(explicit_finish=True, holder="me"))
        assert responses[0].opened.next_sequence == 0
        with refused(grpc.StatusCode.ABORTED, "was taken over"):
            assert [response async for response in answers(call)]


async def test_stopping_server_commits_its_documents(serve):
    async with serve() as (server, stub):
        call = await hold(stub)
        await call.write(documents(TEXTS))
        while (await call.read()).progress.documents < len(TEXTS):
            pass
        stopping = asyncio.create_task(server.stop(grace=60))
        commits = []
        with refused(grpc.StatusCode.UNAVAILABLE, "shutting down"):
            async for response in answers(call):
                commits.append(response.commit.next_sequence)  # noqa: PERF401 - it ends in an error
        await stopping
        assert commits[-1] == len(TEXTS)
    async with serve() as (_, stub):
        opened, *_ = await run(stub, opening(explicit_finish=True))
        assert opened.opened.next_sequence == len(TEXTS)


async def test_job_ended_while_opening_is_reported(serve, monkeypatch):
    """And not only at the end of the grace period."""
    opening_it, may_open = threading.Event(), threading.Event()
    settings = JobDirectory.settings

    def held(self):
        opening_it.set()
        assert may_open.wait(60)
        return settings(self)

    monkeypatch.setattr(JobDirectory, "settings", held)
    async with serve() as (server, stub):
        call = stub.StreamCorpusMean()
        await call.write(opening(explicit_finish=True))
        assert await asyncio.to_thread(opening_it.wait, 60)
        (stream,) = server._service._streams
        stopping = asyncio.create_task(server.stop(grace=60))
        await eventually(lambda: stream._stopped)
        may_open.set()
        with refused(grpc.StatusCode.UNAVAILABLE, "shutting down"):
            assert [response async for response in answers(call)]
        await stopping


async def test_files_of_a_job_have_one_thread(serve, monkeypatch):
    """Nothing can stop the thread that opens a job for a call that ends meanwhile."""
    opening_it, may_open, inside, most = threading.Event(), threading.Event(), [], []
    refresh = JobDirectory.refresh

    def held(self):
        inside.append(self)
        most.append(len(inside))
        opening_it.set()
        assert may_open.wait(30)
        refresh(self)
        inside.pop()

    monkeypatch.setattr(JobDirectory, "refresh", held)
    async with serve() as (server, stub):
        call = stub.StreamCorpusMean()
        await call.write(opening(explicit_finish=True))
        assert await asyncio.to_thread(opening_it.wait, 30)
        lease = server._service._jobs._held["job"]
        call.cancel()
        await eventually(lambda: not server._service._streams)
        reopening = asyncio.create_task(run(stub, opening(explicit_finish=True)))
        await eventually(lambda: len(most) > 1 or bool(lease.released._waiters))
        may_open.set()
        assert (await reopening)[0].opened.next_sequence == 0
    assert most == [1, 1]


async def test_job_being_opened_keeps_its_files(serve, monkeypatch, tmp_path):
    """Its mean is deleted meanwhile: the thread that opens the job starts it again."""
    opening_it, may_open = threading.Event(), threading.Event()
    refresh = JobDirectory.refresh

    def held(self):
        opening_it.set()
        assert may_open.wait(30)
        refresh(self)

    async with serve() as (_, stub):
        *_, made = await run(stub, opening(), documents(TEXTS[:3]))
        monkeypatch.setattr(JobDirectory, "refresh", held)
        reopening = asyncio.create_task(run(stub, opening(explicit_finish=True)))
        assert await asyncio.to_thread(opening_it.wait, 30)
        await stub.DeleteCorpusMean(DeleteCorpusMeanRequest(corpus_mean=made.finished.id))
        assert (tmp_path / "jobs" / "job" / "finished.json").exists()
        may_open.set()
        assert (await reopening)[0].opened.next_sequence == 0
