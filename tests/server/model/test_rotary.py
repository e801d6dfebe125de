"""Rotary embeddings in place, as a GPU runs them, against transformers' own, bit for bit."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from actvec.server.config import ModelOptions
from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.step import StepDocument
from actvec.server.model.demo import VOCABULARY
from actvec.server.model.loading import load_model
from actvec.server.model.packed.rotary import InPlaceRotary, rotate_in_place
from tests.server.conftest import random_llama, random_neox, save_model

RNG = np.random.default_rng(3)
DOCUMENTS = [
    StepDocument.of(RNG.integers(1, VOCABULARY, tokens), "long")
    for tokens in (1, 2, 17, 300, 64, 700)
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    "overrides",
    [{}, {"rotary_pct": 1.0}, {"attention_bias": False, "use_parallel_residual": False}],
    ids=["a-quarter", "whole-heads", "sequential-without-bias"],
)
def test_vectors_equal_transformers_bit_for_bit(overrides, dtype, tmp_path):
    model = str(save_model(tmp_path, random_neox(**overrides)))
    expected = PackedEngine(load_model(ModelOptions(model, dtype=dtype))).run(DOCUMENTS)
    loaded = load_model(ModelOptions(model, dtype=dtype))
    rotate_in_place(loaded.module)
    kinds = [type(module) for module in loaded.module.modules()]
    assert kinds.count(InPlaceRotary) == loaded.card.layers[-1] + 1
    assert_array_equal(PackedEngine(loaded).run(DOCUMENTS), expected)


def test_other_models_stay_unchanged():
    module = random_llama()
    before = [type(child) for child in module.modules()]
    rotate_in_place(module)
    assert [type(child) for child in module.modules()] == before
