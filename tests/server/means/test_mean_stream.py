"""`StreamCorpusMean` over a real connection, through raw stubs: the protocol, and exactly once."""

import asyncio
import contextlib
import hashlib
import threading

import grpc
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load
from transformers import AutoModelForCausalLM

from actvec.client.samples import sample_corpus
from actvec.pooling import MeanAccumulator, pooled_mean
from actvec.server.demo import write_demo_model
from actvec.server.engine import PackedEngine
from actvec.server.errors import NotFiniteError
from actvec.server.means import jobs
from actvec.server.model import load_model
from actvec.v1 import means_pb2, vectors_pb2
from actvec.v1.means_pb2 import (
    CorpusMeanDocuments,
    CorpusMeanFinish,
    CorpusMeanJob,
    CorpusMeanSkip,
    StreamCorpusMeanRequest,
)

from ..reference import reference_states

TEXTS = [document.text for document in sample_corpus() if document.id.endswith("_short")]


def opening(job="job", **settings):
    return StreamCorpusMeanRequest(open=CorpusMeanJob(job=job, **settings))


def documents(texts, start=0):
    return StreamCorpusMeanRequest(
        documents=CorpusMeanDocuments(
            documents=[
                vectors_pb2.Document(id=f"d{number}", text=text, sequence=number)
                for number, text in enumerate(texts, start)
            ]
        )
    )


def finish(count):
    return StreamCorpusMeanRequest(finish=CorpusMeanFinish(documents=count))


async def run(stub, *messages):
    """All responses of a stream whose client half-closes."""
    return [response async for response in stub.StreamCorpusMean(iter(messages))]


async def answers(call):
    """The responses of a call that is written to by hand."""
    while (response := await call.read()) is not grpc.aio.EOF:
        yield response


async def mean_of(stub, texts, job="job", **settings):
    """The record and tensors of a mean that is made in one go."""
    responses = await run(stub, opening(job, **settings), documents(texts))
    record = responses[-1].finished
    return record, await tensors_of(stub, record.id)


async def tensors_of(stub, mean):
    request = means_pb2.DownloadCorpusMeanRequest(corpus_mean=mean)
    parts = [part async for part in stub.DownloadCorpusMean(request)]
    return load(b"".join(part.chunk for part in parts))


@contextlib.contextmanager
def refused(code, match):
    with pytest.raises(grpc.aio.AioRpcError, match=match) as error:
        yield
    assert error.value.code() is code


def assert_same(found, expected):
    assert_array_equal(found["counts"], expected["counts"])
    assert_allclose(found["sums"], expected["sums"], rtol=1e-12, atol=1e-12)


async def test_the_mean_is_that_of_an_independent_model(serve, demo_model, tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    write_demo_model(directory)
    module = AutoModelForCausalLM.from_pretrained(directory).eval()
    tokenizer, layers = demo_model.tokenizer, demo_model.card.layers
    referee = MeanAccumulator(256, variance=True)
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


async def test_the_stream_says_where_it_stands_and_what_is_durable(serve):
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


async def test_what_was_taken_before_a_refusal_is_kept(serve):
    async with serve() as (_, stub):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "is 0"):
            await run(stub, opening(), documents(TEXTS), documents(TEXTS))
        (opened, *_) = await run(stub, opening(explicit_finish=True))
    assert opened.opened.next_sequence == len(TEXTS)


async def test_bad_documents_are_left_out_and_counted_by_reason(serve):
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


async def test_a_document_that_is_not_finite_is_left_out(serve, demo_engine):
    class Poisoned:
        name = "packed"
        card = demo_engine.card

        def run(self, step):

            good = [document for document in step if document.tokens > 10]
            results = iter(demo_engine.run(good) if good else [])
            return [NotFiniteError(4) if one.tokens <= 10 else next(results) for one in step]

    async with serve(Poisoned()) as (_, stub):
        record, _ = await mean_of(stub, [*TEXTS, "a short text"])
    assert record.documents == len(TEXTS)
    assert [entry.reason for entry in record.skipped] == ["INTERNAL"]
    assert "layer 4" in record.skipped[0].first_message


async def test_without_a_finish_message_a_job_stays_open_where_it_was_asked_for(serve):
    async with serve() as (_, stub):
        _, expected = await mean_of(stub, TEXTS, "whole")
        responses = await run(stub, opening(explicit_finish=True), documents(TEXTS[:4]))
        assert responses[-1].WhichOneof("event") != "finished"
        responses = await run(
            stub, opening(explicit_finish=True), documents(TEXTS[4:], 4), finish(len(TEXTS))
        )
        assert responses[0].opened.next_sequence == 4
        assert_same(await tensors_of(stub, responses[-1].finished.id), expected)


async def test_a_cancelled_client_loses_nothing_and_counts_nothing_twice(serve):
    async with serve(commit_seconds=0) as (_, stub):
        _, expected = await mean_of(stub, TEXTS * 4, "whole")
        done = 0
        for _ in range(6):
            call = stub.StreamCorpusMean()
            await call.write(opening(explicit_finish=True))
            opened = (await call.read()).opened
            assert done <= opened.next_sequence <= len(TEXTS) * 4
            done = opened.next_sequence
            await call.write(documents((TEXTS * 4)[done : done + 9], done))
            await asyncio.sleep(0.05)
            call.cancel()
        call = stub.StreamCorpusMean()
        await call.write(opening(explicit_finish=True))
        done = (await call.read()).opened.next_sequence
        await call.write(documents((TEXTS * 4)[done:], done))
        await call.write(finish(len(TEXTS) * 4))
        await call.done_writing()
        *_, last = [response async for response in answers(call)]
        assert_same(await tensors_of(stub, last.finished.id), expected)


async def test_a_stream_cancelled_in_the_middle_of_a_commit_keeps_its_documents(serve, demo_engine):

    going, may_go = threading.Event(), threading.Event()
    may_go.set()

    class Slow:
        name = "packed"
        card = demo_engine.card

        def run(self, step):
            going.set()
            may_go.wait(30)
            return demo_engine.run(step)

    async with serve(Slow(), commit_seconds=0) as (_, stub):
        may_go.clear()
        call = stub.StreamCorpusMean()
        await call.write(opening(explicit_finish=True))
        await call.read()
        await call.write(documents(TEXTS))
        await asyncio.to_thread(going.wait, 30)
        # The server looks every second whether a commit is due, and then waits for the engine.
        await asyncio.sleep(1.5)
        call.cancel()
        may_go.set()
        responses = await run(stub, opening(explicit_finish=True), finish(len(TEXTS)))
        assert responses[0].opened.next_sequence == len(TEXTS)
        assert responses[-1].finished.documents == len(TEXTS)


async def test_an_engine_that_fails_voids_what_was_not_durable_and_the_job_goes_on(
    serve, demo_engine
):
    class Failing:
        name = "packed"
        card = demo_engine.card
        fails = True

        def run(self, step):
            if self.fails:
                raise RuntimeError("the device is lost")
            return demo_engine.run(step)

    engine = Failing()
    async with serve(engine) as (_, stub):
        with refused(grpc.StatusCode.INTERNAL, "internal error"):
            await run(stub, opening(), documents(TEXTS))
        engine.fails = False
        responses = await run(stub, opening(), documents(TEXTS))
        assert responses[0].opened.next_sequence == 0
        assert responses[-1].finished.documents == len(TEXTS)


async def test_a_finished_job_opens_at_its_end_and_goes_no_further(serve):
    async with serve() as (_, stub):
        record, _ = await mean_of(stub, TEXTS)
        opened, finished = await run(stub, opening())
        assert opened.opened.next_sequence == len(TEXTS)
        assert opened.opened.corpus_sha256.hex() == record.corpus_sha256
        assert finished.finished == record
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "is finished, with 10 documents"):
            await run(stub, opening(), documents(["more"], len(TEXTS)))


async def test_a_job_is_reopened_with_the_same_settings_only(serve):
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
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "name the mean"):
            await stub.DeleteCorpusMean(request)
        await stub.DeleteCorpusMean(means_pb2.DeleteCorpusMeanRequest(corpus_mean="job"))
        opened, *_ = await run(stub, opening(explicit_finish=True))
        assert opened.opened.next_sequence == 0


async def test_a_job_without_a_good_document_has_no_mean(serve):
    async with serve() as (_, stub):
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "1 were skipped"):
            await run(stub, opening(), documents([" "]))


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


async def test_a_silent_client_loses_its_job_to_one_that_takes_over(serve, monkeypatch):
    async with serve() as (_, stub):
        call = await hold(stub)
        await call.write(documents(TEXTS[:3]))
        await call.read()
        monkeypatch.setattr(jobs.Holding, "idle", lambda _: 31.0)
        responses = await run(stub, opening(explicit_finish=True, take_over=True))
        assert responses[0].opened.next_sequence == 3
        with refused(grpc.StatusCode.ABORTED, "was taken over by another connection"):
            assert [response async for response in answers(call)]


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


async def extract(stub, text, mode, mean=""):
    settings = vectors_pb2.VectorSettings(mode=mode, corpus_mean=mean)
    request = vectors_pb2.ExtractVectorRequest(text=text, settings=settings)
    answer = await stub.ExtractVector(request)
    return answer, np.frombuffer(answer.vector.vector.data, "<f4")


@pytest.mark.parametrize("mode", ["short", "long"])
async def test_raw_minus_centred_is_the_pooled_mean(serve, mode):
    number = vectors_pb2.Mode.Value(f"MODE_{mode.upper()}")
    async with serve() as (_, stub):
        record, tensors = await mean_of(stub, TEXTS)
        for name in (record.id, "job", "latest"):
            raw, raw_values = await extract(stub, TEXTS[0], number)
            centred, values = await extract(stub, TEXTS[0], number, name)
            tokens = raw.vector.tokens
            predicted = pooled_mean(mode, tensors["corpus_mean"].T, tokens)
            assert_allclose(raw_values - values, predicted, rtol=1e-5, atol=1e-5)
            assert centred.stamp.corpus_mean_id == record.id
            assert centred.stamp.corpus_mean_sha256 == record.sha256
            assert centred.vector.smallest_count == tensors["counts"][tokens - 1]
        assert raw.stamp.corpus_mean_id == ""


async def test_a_document_longer_than_the_mean_is_pooled_over_its_last_tokens(serve):
    text = " ".join(TEXTS)
    async with serve() as (_, stub):
        record, tensors = await mean_of(stub, TEXTS)
        answer, values = await extract(stub, text, vectors_pb2.MODE_SHORT, "latest")
        settings = vectors_pb2.VectorSettings(mode=vectors_pb2.MODE_SHORT, corpus_mean="latest")
        streamed = [
            result.vector
            async for response in stub.StreamVectors(
                iter(
                    [
                        vectors_pb2.StreamVectorsRequest(settings=settings),
                        vectors_pb2.StreamVectorsRequest(
                            documents=[vectors_pb2.Document(text=text)]
                        ),
                    ]
                )
            )
            for result in response.results
        ]
    assert answer.vector.tokens > record.max_tokens
    assert answer.vector.tokens_used == record.max_tokens
    assert answer.vector.smallest_count == tensors["counts"][-1]
    assert_array_equal(np.frombuffer(streamed[0].vector.data, "<f4"), values)


async def test_a_mean_that_does_not_fit_is_refused(serve, tmp_path):
    async with serve() as (_, stub):
        await mean_of(stub, TEXTS, prepend_bos=False)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "prepend_bos"):
            await extract(stub, "a text", vectors_pb2.MODE_SHORT, "latest")
        with refused(grpc.StatusCode.NOT_FOUND, "no corpus mean 'nothing'"):
            await extract(stub, "a text", vectors_pb2.MODE_SHORT, "nothing")
        (path,) = (tmp_path / "means").glob("*.safetensors")
        path.write_bytes(path.read_bytes()[:-1])
        settings = vectors_pb2.VectorSettings(
            mode=vectors_pb2.MODE_SHORT, corpus_mean="latest", prepend_bos=False
        )
        settings.prepend_bos = False
        with refused(grpc.StatusCode.DATA_LOSS, "is not what was stored"):
            await stub.ExtractVector(
                vectors_pb2.ExtractVectorRequest(text="a text", settings=settings)
            )


async def test_means_of_other_layers_are_listed_when_asked_for(serve):

    other = load_model("demo", layers=(1, 2))
    async with serve(PackedEngine(other), other) as (_, stub):
        await mean_of(stub, TEXTS, "theirs")
    async with serve() as (_, stub):
        assert not (await stub.ListCorpusMeans(means_pb2.ListCorpusMeansRequest())).corpus_means
        everything = means_pb2.ListCorpusMeansRequest(all_models=True)
        assert len((await stub.ListCorpusMeans(everything)).corpus_means) == 1
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "layers 1,2; this server has"):
            await extract(stub, "a text", vectors_pb2.MODE_SHORT, "theirs")
        with refused(grpc.StatusCode.NOT_FOUND, "of this model and these layers"):
            await extract(stub, "a text", vectors_pb2.MODE_SHORT, "latest")


async def test_lists_come_in_pages(serve):
    async with serve() as (_, stub):
        for number in range(5):
            await mean_of(stub, TEXTS[number : number + 1], f"mean-{number}")
        names, token = [], ""
        while True:
            request = means_pb2.ListCorpusMeansRequest(page_size=2, page_token=token)
            page = await stub.ListCorpusMeans(request)
            names.append([mean.name for mean in page.corpus_means])
            if not (token := page.next_page_token):
                break
        assert names == [["mean-4", "mean-3"], ["mean-2", "mean-1"], ["mean-0"]]
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "page_token"):
            await stub.ListCorpusMeans(means_pb2.ListCorpusMeansRequest(page_token="?"))


async def upload(stub, content, **announced):

    announced = {
        "name": "up",
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    } | announced
    parts = [
        means_pb2.UploadCorpusMeanRequest(upload=means_pb2.CorpusMeanUpload(**announced)),
        means_pb2.UploadCorpusMeanRequest(chunk=content),
    ]
    return await stub.UploadCorpusMean(iter(parts))


@pytest.mark.parametrize(
    ("announced", "code", "complaint"),
    [
        ({"sha256": "00"}, grpc.StatusCode.INVALID_ARGUMENT, "is not that of the bytes"),
        ({"size_bytes": 3}, grpc.StatusCode.INVALID_ARGUMENT, "goes beyond the 3 bytes"),
        ({"size_bytes": 99}, grpc.StatusCode.INVALID_ARGUMENT, "ended after 7 of 99 bytes"),
        ({"size_bytes": 1 << 40}, grpc.StatusCode.RESOURCE_EXHAUSTED, "at most"),
        ({"name": "../up"}, grpc.StatusCode.INVALID_ARGUMENT, "upload.name: is '../up'"),
        ({}, grpc.StatusCode.INVALID_ARGUMENT, "not a safetensors file"),
    ],
)
async def test_an_upload_that_is_not_what_it_says_is_refused(serve, announced, code, complaint):
    async with serve() as (_, stub):
        with refused(code, complaint):
            await upload(stub, b"rubbish", **announced)


async def test_a_downloaded_mean_is_uploaded_elsewhere_with_its_record(serve, tmp_path):
    async with serve() as (_, stub):
        record, _ = await mean_of(stub, TEXTS)
        content = (tmp_path / "means" / f"{record.id}.safetensors").read_bytes()
        await stub.DeleteCorpusMean(means_pb2.DeleteCorpusMeanRequest(corpus_mean="job"))
        uploaded = (await upload(stub, content)).corpus_mean
    assert uploaded.id == record.id
    assert uploaded.model == record.model
    assert uploaded.corpus_sha256 == record.corpus_sha256
    assert (uploaded.name, uploaded.documents) == ("up", len(TEXTS))
