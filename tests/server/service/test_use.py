"""Uses of finished means, over a real connection: centering, lists, transfers."""

import base64
import hashlib

import grpc
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from actvec.pooling import PRESETS, PoolTokens, pooled_mean
from actvec.server.config import ModelOptions
from actvec.server.engine.packed import PackedEngine
from actvec.server.means import centering
from actvec.server.means.centering import Centering, LoadedMean
from actvec.server.means.format import MeanTensors
from actvec.server.means.record import MeanRecord
from actvec.server.model.loading import load_model
from actvec.server.model.target import Target
from actvec.v1 import means_pb2, vectors_pb2
from tests.server.jobs.talking import TEXTS, mean_of, refused


async def extract(stub, text, mode, mean=""):
    settings = vectors_pb2.VectorSettings(mode=mode, corpus_mean=mean)
    request = vectors_pb2.ExtractVectorRequest(text=text, settings=settings)
    answer = await stub.ExtractVector(request)
    return answer, np.frombuffer(answer.vector.vector.data, "<f4")


@pytest.mark.parametrize("mode", ["short", "long"])
async def test_raw_minus_centered_is_the_pooled_mean(serve, mode):
    number = vectors_pb2.Mode.Value(f"MODE_{mode.upper()}")
    async with serve() as (_, stub):
        record, tensors = await mean_of(stub, TEXTS)
        for name in (record.id, "job", "latest"):
            raw, raw_values = await extract(stub, TEXTS[0], number)
            centered, values = await extract(stub, TEXTS[0], number, name)
            tokens = raw.vector.tokens
            predicted = pooled_mean(mode, tensors["corpus_mean"].T, tokens)
            assert_allclose(raw_values - values, predicted, rtol=1e-5, atol=1e-5)
            assert centered.stamp.corpus_mean_id == record.id
            assert centered.stamp.corpus_mean_sha256 == record.sha256
            assert centered.vector.smallest_count == tensors["counts"][tokens - 1]
        assert raw.stamp.corpus_mean_id == ""


def test_pooled_mean_is_computed_once_per_length(monkeypatch):
    """It takes milliseconds of the event loop, and several times as many in float32."""
    asked = []

    def counted(mode, mean, tokens):
        asked.append((tokens.used, mean.dtype))
        return pooled_mean(mode, mean, tokens)

    monkeypatch.setattr(centering, "pooled_mean", counted)
    lengths = range(1, 2049)
    mean = np.random.default_rng(0).normal(size=(len(lengths), 4)).astype(np.float32)
    record = MeanRecord()
    loaded = LoadedMean(record, MeanTensors(mean, None, None, record))
    centered = Centering(loaded, Target((1,)))
    for tokens in [*lengths, *lengths]:
        values = centered.pooled(PRESETS["long"], PoolTokens(tokens))
    assert asked == [(tokens, np.float64) for tokens in lengths]
    assert_array_equal(values.reshape(-1), pooled_mean("long", mean, len(lengths)))


async def test_long_document_is_pooled_over_its_last_tokens(serve):
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


async def test_unfit_mean_is_refused(serve, tmp_path):
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


async def test_unusable_means_are_listed_on_request(serve):
    other = load_model(ModelOptions("demo", layers=(6, 7)))
    async with serve(PackedEngine(other), other) as (_, stub):
        await mean_of(stub, TEXTS, "theirs")
    async with serve() as (_, stub):
        assert not (await stub.ListCorpusMeans(means_pb2.ListCorpusMeansRequest())).corpus_means
        everything = means_pb2.ListCorpusMeansRequest(all_models=True)
        assert len((await stub.ListCorpusMeans(everything)).corpus_means) == 1
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "layers 6,7; this server has"):
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
        for token in ("?", base64.urlsafe_b64encode(b"-2").decode()):
            with refused(grpc.StatusCode.INVALID_ARGUMENT, "page_token"):
                await stub.ListCorpusMeans(means_pb2.ListCorpusMeansRequest(page_token=token))


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
        ({"sha256": "0" * 64}, grpc.StatusCode.INVALID_ARGUMENT, "does not have the SHA-256"),
        ({"size_bytes": 3}, grpc.StatusCode.INVALID_ARGUMENT, "has more than the 3 bytes"),
        ({"size_bytes": 99}, grpc.StatusCode.INVALID_ARGUMENT, "ended after 7 of 99 bytes"),
        ({"size_bytes": 1 << 40}, grpc.StatusCode.RESOURCE_EXHAUSTED, "the limit is"),
        ({"name": "../up"}, grpc.StatusCode.INVALID_ARGUMENT, "upload.name: is '../up'"),
        ({}, grpc.StatusCode.INVALID_ARGUMENT, "not a safetensors file"),
    ],
)
async def test_upload_that_differs_is_refused(serve, announced, code, complaint):
    async with serve() as (_, stub):
        with refused(code, complaint):
            await upload(stub, b"rubbish", **announced)


async def test_downloaded_mean_keeps_its_record_elsewhere(serve, tmp_path):
    async with serve() as (_, stub):
        record, _ = await mean_of(stub, TEXTS)
        content = (tmp_path / "means" / f"{record.id}.safetensors").read_bytes()
        await stub.DeleteCorpusMean(means_pb2.DeleteCorpusMeanRequest(corpus_mean="job"))
        uploaded = (await upload(stub, content)).corpus_mean
    assert uploaded.id == record.id
    assert uploaded.model == record.model
    # Nobody there has seen the documents.
    assert (record.corpus_sha256 != "", uploaded.corpus_sha256) == (True, "")
    assert (uploaded.name, uploaded.documents) == ("up", len(TEXTS))
