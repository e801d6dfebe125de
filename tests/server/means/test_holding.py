"""Who has a job: one client at a time, and another only where that one is gone."""

import asyncio
import threading
import time

import grpc

from actvec.server.means.checkpoint import JobDirectory

from .talking import (
    TEXTS,
    answers,
    documents,
    opening,
    refused,
    run,
)


async def hold(stub, **settings):
    call = stub.StreamCorpusMean()
    await call.write(opening(explicit_finish=True, **settings))
    await call.read()
    return call


async def test_a_second_client_is_told_that_the_job_is_held(serve):
    async with serve() as (_, stub):
        call = await hold(stub)
        with refused(grpc.StatusCode.ABORTED, "another client holds job job"):
            await run(stub, opening(explicit_finish=True))
        with refused(grpc.StatusCode.ABORTED, r"After 30 s of silence it can be taken over"):
            await run(stub, opening(explicit_finish=True, take_over=True))
        call.cancel()


async def test_a_silent_client_loses_its_job_to_one_that_takes_over(serve):
    async with serve(lease_seconds=0.1) as (_, stub):
        call = await hold(stub)
        await call.write(documents(TEXTS[:3]))
        await call.read()
        await asyncio.sleep(0.2)
        responses = await run(stub, opening(explicit_finish=True, take_over=True))
        assert responses[0].opened.next_sequence == 3
        with refused(grpc.StatusCode.ABORTED, "was taken over by another connection"):
            assert [response async for response in answers(call)]


async def test_a_client_that_the_server_does_not_come_to_read_is_not_silent(serve, demo_engine):
    """Its documents are done one after the other."""

    class Slow:
        name, card = demo_engine.name, demo_engine.card
        groups = demo_engine.groups

        def run(self, step):
            time.sleep(0.2)
            return demo_engine.run(step)

    async with serve(Slow(), lease_seconds=1, step_tokens=1, stream_documents=2) as (_, stub):
        call = await hold(stub)
        await call.write(documents(["a"] * 15))
        await asyncio.sleep(2)
        with refused(grpc.StatusCode.ABORTED, "another client holds job job"):
            await run(stub, opening(explicit_finish=True, take_over=True))
        call.cancel()


async def test_the_same_holder_takes_its_job_back_at_once(serve):
    async with serve() as (_, stub):
        call = await hold(stub, holder="me")
        responses = await run(stub, opening(explicit_finish=True, holder="me"))
        assert responses[0].opened.next_sequence == 0
        with refused(grpc.StatusCode.ABORTED, "was taken over"):
            assert [response async for response in answers(call)]


async def test_a_server_that_stops_commits_what_it_took(serve):
    async with serve() as (server, stub):
        call = await hold(stub)
        await call.write(documents(TEXTS))
        await call.read()
        stopping = asyncio.create_task(server.stop(grace=10))
        commits = []
        with refused(grpc.StatusCode.UNAVAILABLE, "shutting down"):
            async for response in answers(call):
                commits.append(response.commit.next_sequence)  # noqa: PERF401 - it ends in an error
        await stopping
        assert commits[-1] == len(TEXTS)
    async with serve() as (_, stub):
        opened, *_ = await run(stub, opening(explicit_finish=True))
        assert opened.opened.next_sequence == len(TEXTS)


async def test_a_job_that_the_server_ends_while_it_is_opened_is_told_so(serve, monkeypatch):
    """And not when the grace of the end is over."""
    opening_it, may_open = threading.Event(), threading.Event()
    settings = JobDirectory.settings

    def held(self):
        opening_it.set()
        assert may_open.wait(10)
        return settings(self)

    monkeypatch.setattr(JobDirectory, "settings", held)
    async with serve() as (server, stub):
        call = stub.StreamCorpusMean()
        await call.write(opening(explicit_finish=True))
        await asyncio.to_thread(opening_it.wait, 10)
        stopping = asyncio.create_task(server.stop(grace=5))
        await asyncio.sleep(0.2)
        may_open.set()
        with refused(grpc.StatusCode.UNAVAILABLE, "shutting down"):
            assert [response async for response in answers(call)]
        await stopping
