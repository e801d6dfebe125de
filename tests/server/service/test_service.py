"""The service over a real connection, through raw stubs: behavior that any client can rely on."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from numpy.testing import assert_array_equal

from actvec.server.config import Limits, ModelOptions
from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.runner import StepRunner
from actvec.server.engine.step import StepDocument
from actvec.server.extraction.contents import TextContent
from actvec.server.extraction.extractor import Extractor
from actvec.server.extraction.recipe import Recipe
from actvec.server.model.demo import WIDTH
from actvec.server.model.loading import load_model
from actvec.server.model.text.tokenizer import Tokenizer
from actvec.server.service.requests import parse_settings
from actvec.v1 import means_pb2, model_pb2
from actvec.v1.vectors_pb2 import (
    MODE_LONG,
    MODE_SHORT,
    TRUNCATION_KEEP_END,
    TRUNCATION_KEEP_START,
    VECTOR_ENCODING_FLOAT16,
    VECTOR_ENCODING_VALUES,
    Document,
    ExtractVectorRequest,
    StreamVectorsRequest,
    VectorSettings,
)
from tests.server.calling import SHORT, collect, extract, floats
from tests.server.conftest import random_neox, save_model
from tests.waiting import eventually


async def test_get_model_info(serve):
    async with serve() as (_, stub):
        info = await stub.GetModelInfo(model_pb2.GetModelInfoRequest())
    assert info.model.model == "demo"
    assert list(info.model.layers) == [4, 5, 6]
    assert (info.n_layers, info.n_layers_loaded, info.d_model) == (8, 7, WIDTH)
    assert (info.engine, info.device, info.model.dtype) == ("packed", "cpu", "float32")
    assert {mode.mode: mode.dimensions for mode in info.modes} == {
        MODE_SHORT: WIDTH,
        MODE_LONG: 4 * WIDTH,
    }
    assert info.limits.max_tokens == 4096
    assert info.versions.torch.startswith("2.13.0")


async def test_a_vector_and_its_stamp(serve, demo_model, demo_engine):
    async with serve() as (_, stub):
        answer = await extract(stub, "One document.", mode=MODE_LONG)
    ids = [0, *demo_model.tokenizer("One document.")["input_ids"]]
    (pools,) = demo_engine.run([StepDocument.of(np.array(ids), "long")])
    assert_array_equal(floats(answer.vector.vector), pools.reshape(-1))
    assert answer.vector.vector.dimensions == 4 * WIDTH
    assert answer.vector.tokens == answer.vector.tokens_used == len(ids)
    assert not answer.vector.truncated
    stamp = answer.stamp
    assert stamp.model.revision == demo_model.card.revision
    assert stamp.model.tokenizer_sha256 == demo_model.card.tokenizer_sha256
    assert (stamp.model.hook, stamp.model.dtype) == ("resid_post", "float32")
    assert [(pool.name, pool.depth) for pool in stamp.pools] == [
        ("last", 0.0),
        ("exp_977", 0.023),
        ("exp_933", 0.067),
        ("exp_841", 0.159),
    ]
    assert stamp.prepend_bos
    assert stamp.actvec_version
    assert (stamp.corpus_mean_id, stamp.corpus_mean_sha256) == ("", "")


async def test_short_is_the_third_quarter_of_long(serve):
    async with serve() as (_, stub):
        short = await extract(stub, "The same text, twice.", mode=MODE_SHORT)
        long = await extract(stub, "The same text, twice.", mode=MODE_LONG)
    assert_array_equal(
        floats(short.vector.vector), floats(long.vector.vector)[2 * WIDTH : 3 * WIDTH]
    )


async def test_bos_is_the_callers_choice(serve):
    async with serve() as (_, stub):
        with_bos = await extract(stub, "text", mode=MODE_SHORT)
        without = await extract(stub, "text", mode=MODE_SHORT, prepend_bos=False)
    assert with_bos.vector.tokens == without.vector.tokens + 1
    assert not without.stamp.prepend_bos


async def test_encodings_carry_the_same_numbers(serve):
    async with serve() as (_, stub):
        exact = floats((await extract(stub, "text", mode=MODE_SHORT)).vector.vector)
        half = await extract(stub, "text", mode=MODE_SHORT, encoding=VECTOR_ENCODING_FLOAT16)
        values = await extract(stub, "text", mode=MODE_SHORT, encoding=VECTOR_ENCODING_VALUES)
    assert_array_equal(np.frombuffer(half.vector.vector.data, "<f2"), exact.astype("<f2"))
    assert_array_equal(np.float32(values.vector.vector.values), exact)
    assert values.vector.vector.data == b""


async def test_number_beyond_float16_is_an_error(serve, tmp_path):
    module = random_neox()
    for layer in module.gpt_neox.layers:
        layer.mlp.dense_4h_to_h.bias.data[3] = 60_000.0
    loaded = load_model(ModelOptions(str(save_model(tmp_path, module))))
    async with serve(PackedEngine(loaded), loaded) as (_, stub):
        assert np.isfinite(floats((await extract(stub, "a", mode=MODE_SHORT)).vector.vector)).all()
        with pytest.raises(grpc.aio.AioRpcError, match="float16 holds numbers up to") as error:
            await extract(stub, "a", mode=MODE_SHORT, encoding=VECTOR_ENCODING_FLOAT16)
    assert error.value.code() is grpc.StatusCode.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({}, "settings.mode", "use MODE_SHORT or MODE_LONG"),
        ({"mode": 9}, "settings.mode", "is 9"),
        ({"mode": MODE_SHORT, "truncation": 7}, "settings.truncation", "is 7"),
        ({"mode": MODE_SHORT, "encoding": 8}, "settings.encoding", "is 8"),
    ],
)
async def test_settings_out_of_range_name_the_field(serve, settings, field, message):
    async with serve() as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await extract(stub, "text", **settings)
        with pytest.raises(grpc.aio.AioRpcError) as stream_error:
            await collect(stub, [StreamVectorsRequest(settings=VectorSettings(**settings))])
    for caught in (error.value, stream_error.value):
        assert caught.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.details().startswith(field)
        assert message in caught.details()
    metadata = dict(error.value.trailing_metadata())
    details = status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details
    violations = error_details_pb2.BadRequest()
    assert details[0].Unpack(violations)
    assert violations.field_violations[0].field == field


@pytest.mark.parametrize("text", ["", "  \n "])
async def test_a_blank_text_is_refused(serve, text):
    async with serve() as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError, match="text: is empty or blank") as error:
            await extract(stub, text, mode=MODE_SHORT)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_text_over_the_context_obeys_truncation(serve):
    words = " ".join(f"word{n}" for n in range(3000))
    async with serve() as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError, match=r"text: has \d+ tokens.*4096 fit") as error:
            await extract(stub, words, mode=MODE_SHORT)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        start = await extract(stub, words, mode=MODE_LONG, truncation=TRUNCATION_KEEP_START)
        end = await extract(stub, words, mode=MODE_LONG, truncation=TRUNCATION_KEEP_END)
        longer = await extract(stub, words + "x", mode=MODE_LONG, truncation=TRUNCATION_KEEP_START)
    for answer in (start, end):
        assert answer.vector.truncated
        assert answer.vector.tokens > 4096
        assert answer.vector.tokens_used == 4096
    assert not np.array_equal(floats(start.vector.vector), floats(end.vector.vector))
    assert_array_equal(floats(start.vector.vector), floats(longer.vector.vector))


async def test_text_over_the_byte_limit_is_not_tokenized(serve):
    async with serve(text_bytes=100) as (_, stub):
        await extract(stub, "a" * 100, mode=MODE_SHORT)
        with pytest.raises(grpc.aio.AioRpcError, match=r"text: is larger.* 100 bytes") as error:
            await extract(stub, "é" * 51, mode=MODE_SHORT)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_message_over_the_limit_is_refused(serve):
    async with serve(message_bytes=1000) as (_, stub):
        with pytest.raises(
            grpc.aio.AioRpcError, match=r"larger than max \(\d+ vs\. 1000\)"
        ) as error:
            await extract(stub, "a" * 2000, mode=MODE_SHORT)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_message_limit_is_just_above_a_text():
    """gRPC copies a message on the event loop, while everybody waits."""
    limits = Limits()
    assert limits.text_bytes + (1 << 16) <= limits.message_bytes <= 1.25 * limits.text_bytes


async def test_an_unknown_mean_is_not_found(serve):
    async with serve() as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError, match="no corpus mean 'nothing'") as error:
            await extract(stub, "text", mode=MODE_SHORT, corpus_mean="nothing")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_long_error_arrives_unchanged(serve):
    # gRPC replaces a status whose headers are over 8 KiB by one of its own.
    async with serve() as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await extract(stub, "text", mode=MODE_SHORT, corpus_mean="\U0001f4a5" * 5000)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert error.value.details().startswith("no corpus mean '\U0001f4a5")
        assert " ... " in error.value.details()
        assert error.value.details().endswith("there are: none")
        request = means_pb2.MergeCorpusMeansRequest(name="\U0001f4a5" * 5000)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.MergeCorpusMeans(request)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["ExtractVector", "StreamVectors"])
@pytest.mark.parametrize(
    ("replace", "field"),
    [(b"\xff\xfe\xfa\xfb", "text"), (None, "request")],
    ids=["utf8", "rubbish"],
)
async def test_bytes_that_are_no_message_say_why(serve, method, replace, field):
    message = (
        ExtractVectorRequest(text="TEXT", settings=SHORT)
        if method == "ExtractVector"
        else StreamVectorsRequest(
            settings=SHORT, documents=[Document(text="fine"), Document(text="TEXT")]
        )
    )
    if field == "text" and method == "StreamVectors":
        field = "documents[1].text"
    raw = message.SerializeToString().replace(b"TEXT", replace) if replace else b"\x0a\xff\xff"
    async with (
        serve() as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        path = f"/actvec.v1.ActivationVectorService/{method}"
        with pytest.raises(grpc.aio.AioRpcError, match=rf"{field}".replace("[", r"\[")) as error:
            if method == "ExtractVector":
                await channel.unary_unary(path)(raw)
            else:
                async for _ in channel.stream_stream(path)(iter([raw])):
                    pass
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_concurrent_unary_calls_share_steps(serve, held_engine):
    async with serve(held_engine) as (server, stub):
        first = asyncio.create_task(extract(stub, "a", mode=MODE_SHORT))
        await held_engine.entered()
        others = [asyncio.create_task(extract(stub, "a", mode=MODE_SHORT)) for _ in range(20)]
        # A word and BOS each.
        await eventually(lambda: server._extractor.waiting_tokens(interactive=True) == 20 * 2)
        held_engine.release()
        await asyncio.gather(first, *others)
    assert held_engine.steps == [1, 20]


async def test_cancelled_call_spares_its_neighbors(demo_model, demo_engine):
    steps = threading.Semaphore(0)
    runner = StepRunner(demo_engine, lambda _: steps.release())
    tokenizer = Tokenizer(
        demo_model.tokenizer, 100, bos=demo_model.bos, vocabulary=demo_model.vocabulary
    )
    # Two texts of two tokens are a step, the third is another.
    extractor = Extractor([runner], tokenizer, Limits(), step_tokens=5)
    recipe = Recipe(parse_settings(SHORT, extractor.card, Limits(), has_bos=True), None)
    calls = [asyncio.create_task(extractor.extract(TextContent(text), recipe)) for text in "abc"]
    await eventually(lambda: extractor.waiting_tokens(interactive=True) >= 6)
    extractor.start([ThreadPoolExecutor(1)])
    # The loop stands still: once the second step is done, the answers of the first wait for it.
    for _ in range(2):
        assert steps.acquire(timeout=30)
    calls[0].cancel()
    assert [vector.tokens for vector in await asyncio.gather(*calls[1:])] == [2, 2]
    await extractor.drain()
