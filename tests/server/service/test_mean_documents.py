"""The documents that a mean covers, and the tokens of a document that it centers."""

import grpc
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from actvec.pooling import MODES, pooling_matrix
from actvec.server.config import ModelOptions
from actvec.server.engine.packed import PackedEngine
from actvec.server.model.loading import load_model
from actvec.v1 import means_pb2
from actvec.v1.vectors_pb2 import MODE_LONG
from tests.server.calling import extract, floats
from tests.server.conftest import random_neox, save_model
from tests.server.jobs.talking import (
    TEXTS,
    documents,
    finish,
    mean_of,
    opening,
    refused,
    run,
    tensors_of,
)


async def test_infinite_states_stay_out_of_the_mean(serve, tmp_path):
    loaded = load_model(ModelOptions(str(save_model(tmp_path / "model", random_neox()))))
    (poison,) = loaded.tokenizer("~")["input_ids"]
    loaded.module.gpt_neox.embed_in.weight[poison] = float("inf")
    async with serve(PackedEngine(loaded), loaded) as (_, stub):
        record, found = await mean_of(stub, ["a", "b~", "c"], "poisoned")
        _, expected = await mean_of(stub, ["a", "c"], "clean")
    assert record.documents == 2
    assert [(one.reason, one.documents) for one in record.skipped] == [("INTERNAL", 1)]
    assert_array_equal(found["counts"], expected["counts"])
    assert_array_equal(found["sums"], expected["sums"])


@pytest.mark.parametrize("claimed", [2, 4])
async def test_finish_names_every_document(serve, claimed):
    async with serve() as (_, stub):
        with refused(
            grpc.StatusCode.INVALID_ARGUMENT, f"finish.documents: is {claimed}; the job has 3"
        ):
            await run(stub, opening(), documents(TEXTS[:3]), finish(claimed))
        assert (await run(stub, opening(), finish(3)))[-1].finished.documents == 3


async def test_long_text_is_centered_over_its_last_tokens(serve, demo_model, demo_engine):
    async with serve() as (_, stub):
        record, tensors = await mean_of(stub, ["A few words."])
        text = " ".join(TEXTS)[:400]
        answer = await extract(stub, text, mode=MODE_LONG, corpus_mean=record.id)
    tokenizer = demo_model.tokenizer
    ids = np.array([tokenizer.bos_token_id, *tokenizer(text)["input_ids"]])
    used = record.max_tokens
    assert answer.vector.tokens == len(ids) > answer.vector.tokens_used == used
    states = demo_engine.states(ids)[-used:] - tensors["corpus_mean"].T[::-1]
    expected = pooling_matrix("long", used) @ states
    found = floats(answer.vector.vector).reshape(len(MODES["long"]), -1)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


async def test_no_mean_is_merged_twice(serve):
    async with serve() as (_, stub):
        a, _ = await mean_of(stub, TEXTS[:2], "a")
        b, _ = await mean_of(stub, TEXTS[2:5], "b")
        for names in (["a", "a", "b"], ["a", "b", "a"], ["a", "b", a.id], [b.id, "a", "b"], ["a"]):
            request = means_pb2.MergeCorpusMeansRequest(corpus_means=names, name="both")
            with refused(grpc.StatusCode.INVALID_ARGUMENT, "needs two or more different means"):
                await stub.MergeCorpusMeans(request)
        request = means_pb2.MergeCorpusMeansRequest(corpus_means=["a", b.id], name="both")
        merged = (await stub.MergeCorpusMeans(request)).corpus_mean
        assert merged.documents == 5
        sums = [(await tensors_of(stub, one))["sums"] for one in ("a", "b", "both")]
    longest = max(len(one) for one in sums)
    padded = [np.pad(one, ((0, longest - len(one)), (0, 0))) for one in sums]
    assert_allclose(padded[2], padded[0] + padded[1], rtol=1e-12, atol=1e-12)
