"""`StreamCorpusMean` over a real connection, through raw stubs: the protocol, and exactly once."""

import asyncio

import grpc
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from transformers import AutoModelForCausalLM

from actvec.pooling import MeanAccumulator
from actvec.server.errors import NotFiniteError
from actvec.server.jobs.mean_job import MeanJob
from actvec.server.model.demo import WIDTH, write_demo_model
from actvec.v1 import means_pb2, vectors_pb2
from actvec.v1.means_pb2 import (
    CorpusMeanSkip,
    StreamCorpusMeanRequest,
)
from tests.server.calling import error_of
from tests.server.engines import FailingEngine, StandIn
from tests.server.jobs.talking import (
    TEXTS,
    answers,
    assert_same,
    documents,
    finish,
    mean_of,
    opening,
    refused,
    run,
    tensors_of,
)
from tests.server.reference import reference_states
from tests.waiting import eventually


async def test_mean_agrees_with_an_independent_model(serve, demo_model, tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    write_demo_model(directory)
    module = AutoModelForCausalLM.from_pretrained(directory).eval()
    tokenizer, layers = demo_model.tokenizer, demo_model.card.layers
    referee = MeanAccumulator(WIDTH, variance=True)
    for text in TEXTS:
        ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        referee.add(reference_states(module, np.array(ids), layers))
    async with serve() as (_, stub):
        record, tensors = await mean_of(stub, TEXTS, variance=True)
    assert_array_equal(tensors["counts"], referee.counts)
    error = np.linalg.norm(tensors["corpus_mean"].T - referee.mean(), axis=1)
    assert (error <= 1e-5 * np.linalg.norm(referee.mean(), axis=1)).all()
    assert_allclose(tensors["corpus_variance"].T, referee.variance(), rtol=1e-3, atol=1e-4)
    assert (record.documents, record.tokens) == (referee.documents, referee.tokens)


async def test_order_and_message_size_change_nothing(serve):
    async with serve() as (_, stub):
        _, expected = await mean_of(stub, TEXTS, "in-order")
        _, reversed_ = await mean_of(stub, TEXTS[::-1], "reversed")
        one_by_one = [documents([text], number) for number, text in enumerate(TEXTS)]
        responses = await run(stub, opening("one-by-one"), *one_by_one)
        split = await tensors_of(stub, responses[-1].finished.id)
    assert_same(reversed_, expected)
    assert_same(split, expected)


async def test_stream_reports_its_state_and_commits(serve):
    async with serve() as (_, stub):
        responses = await run(stub, opening(), documents(TEXTS))
    assert responses[0].opened.next_sequence == 0
    assert responses[-2].commit.next_sequence == len(TEXTS)
    assert responses[-2].commit.corpus_sha256.hex() == responses[-1].finished.corpus_sha256
    assert "progress" in {response.WhichOneof("event") for response in responses}


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "open: the first message"),
        ([documents(TEXTS)], "open: the first message"),
        ([opening("../up")], "open.job: is '../up'"),
        ([opening("ok", name="a b")], "open.name: is 'a b'"),
        ([opening(), opening()], "open: belongs in the first message only"),
        ([opening(), StreamCorpusMeanRequest()], "message: belongs in the first message only"),
        (
            [opening(), documents(TEXTS, start=1)],
            "documents.sequence: is 1; the next document is 0",
        ),
        ([opening(), documents(TEXTS), documents(TEXTS)], "is 0; the next document is 10"),
        ([opening(), documents(TEXTS), finish(11)], "finish.documents: is 11; the job has 10"),
        (
            [opening(), StreamCorpusMeanRequest(skip=CorpusMeanSkip(reason="WHY"))],
            "skip.reason: is 'WHY'",
        ),
    ],
)
async def test_what_breaks_the_protocol_is_refused(serve, messages, complaint):
    async with serve() as (_, stub):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, complaint):
            await run(stub, *messages)


async def test_documents_before_a_refusal_are_kept(serve):
    async with serve() as (_, stub):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "is 0"):
            await run(stub, opening(), documents(TEXTS), documents(TEXTS))
        (opened, *_) = await run(stub, opening(explicit_finish=True))
    assert opened.opened.next_sequence == len(TEXTS)


async def test_bad_documents_are_skipped_by_reason(serve):
    texts = ["good", " ", "\n\n", "word " * 5000, "also good"]
    skip = StreamCorpusMeanRequest(
        skip=CorpusMeanSkip(sequence=5, id="lost", reason="DATA_LOSS", message="the disk is gone")
    )
    async with serve() as (_, stub):
        responses = await run(stub, opening(), documents(texts), skip)
    record = responses[-1].finished
    skipped = {entry.reason: entry for entry in record.skipped}
    assert record.documents == 2
    assert skipped["INVALID_ARGUMENT"].documents == 3
    assert skipped["INVALID_ARGUMENT"].first_id == "d1"
    assert "blank" in skipped["INVALID_ARGUMENT"].first_message
    assert (skipped["DATA_LOSS"].documents, skipped["DATA_LOSS"].first_id) == (1, "lost")
    assert responses[-2].commit.skipped == record.skipped


async def test_commits_repeat_no_long_id(serve):
    skips = [
        StreamCorpusMeanRequest(
            skip=CorpusMeanSkip(sequence=n, id="i" * 50_000, reason="DATA_LOSS")
        )
        for n in range(2)
    ]
    async with serve() as (_, stub):
        responses = await run(stub, opening(explicit_finish=True), *skips)
        (opened, *_) = await run(stub, opening(explicit_finish=True))
    assert opened.opened.next_sequence == 2
    assert opened.opened.skipped[0].first_id == "i" * 1024
    assert max(response.ByteSize() for response in responses) < 2000


async def test_infinite_document_is_skipped(serve, demo_engine):
    def poisoned(step):
        good = [document for document in step if document.tokens > 10]
        results = iter(demo_engine.run(good) if good else [])
        return [NotFiniteError(4) if one.tokens <= 10 else next(results) for one in step]

    async with serve(StandIn(demo_engine, poisoned)) as (_, stub):
        record, _ = await mean_of(stub, [*TEXTS, "a short text"])
    assert record.documents == len(TEXTS)
    assert [entry.reason for entry in record.skipped] == ["INTERNAL"]
    assert "layer 4" in record.skipped[0].first_message


async def test_explicit_finish_leaves_a_job_open(serve):
    async with serve() as (_, stub):
        _, expected = await mean_of(stub, TEXTS, "whole")
        responses = await run(stub, opening(explicit_finish=True), documents(TEXTS[:4]))
        assert responses[-1].WhichOneof("event") != "finished"
        responses = await run(
            stub, opening(explicit_finish=True), documents(TEXTS[4:], 4), finish(len(TEXTS))
        )
        assert responses[0].opened.next_sequence == 4
        assert_same(await tensors_of(stub, responses[-1].finished.id), expected)


async def test_message_is_tokenized_as_room_allows(serve, held_engine, tokenized_texts):
    """A few documents at a time: a message of a million delays nobody."""
    async with serve(held_engine, stream_documents=8) as (_, stub):
        running = asyncio.create_task(run(stub, opening(), documents(["a"] * 1000)))
        await held_engine.entered()
        await asyncio.sleep(0.05)
        assert len(tokenized_texts) <= 8 + 64
        held_engine.release()
        responses = await running
    assert responses[-1].finished.documents == 1000


async def test_cancelled_client_counts_nothing_twice(serve):
    async with serve(commit_seconds=0) as (_, stub):
        _, expected = await mean_of(stub, TEXTS * 4, "whole")
        done = 0
        # A holder gets its job back, even if the server has not noticed yet that its call is over.
        holder = {"explicit_finish": True, "holder": "me"}
        for _ in range(6):
            call = stub.StreamCorpusMean()
            await call.write(opening(**holder))
            opened = (await call.read()).opened
            assert done <= opened.next_sequence <= len(TEXTS) * 4
            done = opened.next_sequence
            await call.write(documents((TEXTS * 4)[done : done + 9], done))
            await asyncio.sleep(0.02)
            call.cancel()
        call = stub.StreamCorpusMean()
        await call.write(opening(**holder))
        done = (await call.read()).opened.next_sequence
        await call.write(documents((TEXTS * 4)[done:], done))
        await call.write(finish(len(TEXTS) * 4))
        await call.done_writing()
        *_, last = [response async for response in answers(call)]
        assert_same(await tensors_of(stub, last.finished.id), expected)


async def test_cancelled_commit_keeps_its_documents(serve, held_engine, monkeypatch):
    committing = []
    commit = MeanJob.commit

    def noted(self):
        committing.append(self.uncommitted)
        return commit(self)

    monkeypatch.setattr(MeanJob, "commit", noted)
    monkeypatch.setattr("actvec.server.service.mean_stream._PROGRESS_SECONDS", 0.01)
    async with serve(held_engine, commit_seconds=0) as (server, stub):
        call = stub.StreamCorpusMean()
        await call.write(opening(explicit_finish=True))
        await call.read()
        await call.write(documents(TEXTS))
        await held_engine.entered()
        # It waits for the engine.
        await eventually(lambda: any(committing))
        call.cancel()
        await eventually(lambda: not server._service._streams)
        held_engine.release()
        responses = await run(stub, opening(explicit_finish=True), finish(len(TEXTS)))
        assert responses[0].opened.next_sequence == len(TEXTS)
        assert responses[-1].finished.documents == len(TEXTS)


async def test_failing_engine_voids_uncommitted_documents(serve, demo_engine):
    engine = FailingEngine(demo_engine, RuntimeError("the device is lost"))
    async with serve(engine) as (_, stub):
        with refused(grpc.StatusCode.INTERNAL, "the engine failed"):
            await run(stub, opening(), documents(TEXTS))
        engine.run = demo_engine.run
        responses = await run(stub, opening(), documents(TEXTS))
        assert responses[0].opened.next_sequence == 0
        assert responses[-1].finished.documents == len(TEXTS)


async def test_finished_job_stays_finished(serve):
    async with serve() as (_, stub):
        record, _ = await mean_of(stub, TEXTS)
        opened, finished = await run(stub, opening())
        assert opened.opened.next_sequence == len(TEXTS)
        assert opened.opened.corpus_sha256.hex() == record.corpus_sha256
        assert finished.finished == record
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "is finished, with 10 documents"):
            await run(stub, opening(), documents(["more"], len(TEXTS)))


async def test_job_reopens_with_the_same_settings_only(serve):
    async with serve() as (_, stub):
        await run(stub, opening(explicit_finish=True), documents(TEXTS[:2]))
        await mean_of(stub, TEXTS, "finished")
        for job in ("job", "finished"):
            for other in (
                {"variance": True},
                {"prepend_bos": False},
                {"truncation": vectors_pb2.TRUNCATION_KEEP_END},
                {"name": "another"},
            ):
                with refused(grpc.StatusCode.FAILED_PRECONDITION, "begun with other settings"):
                    await run(stub, opening(job, **other))


async def test_a_deleted_mean_frees_its_job(serve):
    async with serve() as (_, stub):
        await mean_of(stub, TEXTS)
        request = means_pb2.DeleteCorpusMeanRequest(corpus_mean="latest")
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "give the name or id"):
            await stub.DeleteCorpusMean(request)
        await stub.DeleteCorpusMean(means_pb2.DeleteCorpusMeanRequest(corpus_mean="job"))
        opened, *_ = await run(stub, opening(explicit_finish=True))
        assert opened.opened.next_sequence == 0


async def test_job_without_a_good_document_has_no_mean(serve):
    async with serve() as (_, stub):
        reason = "1 skipped, the first, .d0., because text: is empty"
        with refused(grpc.StatusCode.FAILED_PRECONDITION, reason):
            await run(stub, opening(), documents([" "]))


async def test_waiting_client_is_not_idle(serve, held_engine, clock):
    async with serve(held_engine, idle_seconds=600, commit_seconds=1e9) as (_, stub):
        call = stub.StreamCorpusMean()
        await call.write(opening(explicit_finish=True))
        await call.write(documents(TEXTS[:3]))
        await held_engine.entered()
        for _ in range(8):
            # In steps: an answer that is on its way may also take 600 seconds, and not more.
            clock.advance(200)
            while not (await call.read()).HasField("progress"):
                pass
        held_engine.release()
        await call.write(finish(3))
        assert [one async for one in answers(call)][-1].finished.documents == 3


async def test_silent_client_is_idle(serve, idle_clock):
    async with serve(idle_seconds=600) as (_, stub):
        call = stub.StreamCorpusMean()
        await call.write(opening(explicit_finish=True))
        await call.write(documents(TEXTS[:3]))
        while (await idle_clock.passes(5, call.read())).commit.next_sequence < 3:
            pass
        error = await idle_clock.passes(601, error_of(call))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "nothing was sent for 600 seconds" in error.details()
