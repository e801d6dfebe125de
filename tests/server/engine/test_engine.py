"""A vector is right, whatever its document was packed with: numerics.md sections 1, 2 and 6."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from actvec.server.config import ModelOptions
from actvec.server.engine.lens import LensEngine
from actvec.server.engine.load import load_engine
from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.plain import PlainEngine
from actvec.server.engine.runner import StepRunner
from actvec.server.engine.step import StepDocument
from actvec.server.errors import NotFiniteError, StartupError
from actvec.server.model.demo import VOCABULARY
from actvec.server.model.loading import load_model
from actvec.server.model.packed.blocked import Blocks
from actvec.server.model.target import RESID_POST, Point
from tests.server.conftest import random_llama, random_neox, save_model
from tests.server.reference import cosine, reference_pools, reference_states, relative_error

RNG = np.random.default_rng(7)


def random_ids(tokens: int) -> np.ndarray:
    return RNG.integers(1, VOCABULARY, tokens)


def run(engine, documents):
    """The pools `[4, D]` of mode long of each document of a step, or its error."""
    found = StepRunner(engine)([StepDocument.of(ids, "long") for ids in documents])
    return [one if isinstance(one, Exception) else one[0] for one in found]


def steps_of(documents, budget=4096):
    """Cut documents into steps as a scheduler would."""
    step, used = [], 0
    for document in documents:
        if step and used + len(document) > budget:
            yield step
            step, used = [], 0
        step.append(document)
        used += len(document)
    yield step


@pytest.fixture(scope="module")
def neox(neox_directory: Path):
    return PackedEngine(load_model(ModelOptions(str(neox_directory))))


def test_mixed_batch_agrees_with_the_reference(neox):
    module = random_neox()
    lengths = [1, 2, 3, 7, 8, 2047, 2048]
    lengths += [int(n) for n in np.clip(RNG.lognormal(5, 1.2, 193), 1, 2048)]
    documents = [random_ids(tokens) for tokens in RNG.permutation(lengths)]
    assert len(documents) == 200
    vectors = [pools for step in steps_of(documents) for pools in run(neox, step)]
    for ids, pools in zip(documents, vectors, strict=True):
        reference = reference_pools(reference_states(module, ids, neox.card.layers))
        assert pools.dtype == np.float32
        assert relative_error(pools, reference) <= 1e-5


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("neox-sequential", lambda: random_neox(use_parallel_residual=False)),
        ("neox-wide", lambda: random_neox(hidden_size=160, num_attention_heads=5)),
        ("neox-deep", lambda: random_neox(num_hidden_layers=12, hidden_size=32)),
        ("neox-odd-width", lambda: random_neox(hidden_size=36, num_attention_heads=2)),
        ("llama-grouped-keys", random_llama),
    ],
)
def test_any_decoder_agrees_with_the_reference(name, make, tmp_path):
    module = make()
    engine = PackedEngine(load_model(ModelOptions(str(save_model(tmp_path / name, module)))))
    documents = [random_ids(tokens) for tokens in (5, 300, 1, 64, 700)]
    for ids, pools in zip(documents, run(engine, documents), strict=True):
        reference = reference_pools(reference_states(module, ids, engine.card.layers))
        assert relative_error(pools, reference) <= 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bit_weights_stay_close_to_float32(dtype, neox_directory):
    module = random_neox()
    engine = PackedEngine(load_model(ModelOptions(str(neox_directory), dtype=dtype)))
    documents = [random_ids(tokens) for tokens in (3, 40, 200, 90)]
    for ids, packed in zip(documents, run(engine, documents), strict=True):
        reference = reference_pools(reference_states(module, ids, engine.card.layers))
        (alone,) = run(engine, [ids])
        assert cosine(packed, reference) >= 0.9999
        assert cosine(packed, alone) >= 0.99999


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vector_is_bitwise_the_same_in_any_step(dtype, neox_directory):
    engine = PackedEngine(load_model(ModelOptions(str(neox_directory), dtype=dtype)))
    documents = [
        random_ids(tokens) for tokens in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 250, 900)
    ]
    alone = [run(engine, [ids])[0] for ids in documents]

    @settings(max_examples=25)
    @given(st.lists(st.integers(0, len(documents) - 1), min_size=2, max_size=20))
    def in_any_step(picked):
        packed = run(engine, [documents[index] for index in picked])
        for index, pools in zip(picked, packed, strict=True):
            assert_array_equal(pools, alone[index])

    in_any_step()


def test_no_document_sees_another(demo_engine):
    ids = random_ids(50)
    others = [[random_ids(30), random_ids(7)], [random_ids(400), random_ids(1)]]
    before = [run(demo_engine, [other[0], ids, other[1]])[1] for other in others]
    assert_array_equal(before[0], before[1])
    # and the test would notice a leak: within one document the tokens before do matter
    joined = [run(demo_engine, [np.concatenate([other[0], ids])])[0] for other in others]
    assert not np.allclose(joined[0], joined[1])


def test_the_referee_agrees(neox, neox_directory):
    lens = LensEngine(load_model(ModelOptions(str(neox_directory), engine="lens")))
    documents = [random_ids(tokens) for tokens in (1, 12, 130)]
    for packed, referee in zip(run(neox, documents), run(lens, documents), strict=True):
        assert relative_error(packed, referee) <= 1e-5


def test_the_referee_takes_any_hook_point(neox_directory):
    lens = LensEngine(load_model(ModelOptions(str(neox_directory), engine="lens", hook="mlp_out")))
    (pools,) = run(lens, [random_ids(9)])
    assert pools.shape == (4, 64)


def test_target_layers_may_reach_the_last_block(neox_directory):
    """No hook is missed and no final norm interferes if no block follows the last target."""
    module = random_neox()
    caught = []
    module.gpt_neox.layers[5].register_forward_hook(lambda *args: caught.append(args[2][0]))
    ids = random_ids(20)
    with torch.inference_mode():
        module(torch.from_numpy(ids)[None])
    reference = reference_pools(caught[0].double().numpy())
    for name in ("packed", "plain", "lens"):
        engine, _ = load_engine(ModelOptions(str(neox_directory), layers=(5,), engine=name))
        assert relative_error(run(engine, [ids])[0], reference) <= 1e-5


def test_layers_are_averaged_in_float32(neox_directory):
    """A mean taken in 16 bits loses digits: here it would round away the layers' differences."""
    ids = random_ids(30)
    engines = [
        PackedEngine(load_model(ModelOptions(str(neox_directory), layers=layers, dtype="bfloat16")))
        for layers in [(2,), (3,), (4,), (2, 3, 4)]
    ]
    one, two, three, mean = [run(engine, [ids])[0].astype(np.float64) for engine in engines]
    assert relative_error(mean, (one + two + three) / 3) <= 1e-6


def test_plain_refuses_blocks_without_a_residual_stream():
    model = load_model(ModelOptions())
    width = model.card.d_model
    engine = PlainEngine(model)
    engine.decoder.blocks[1].register_forward_hook(lambda *given: torch.cat([given[2]] * 2, dim=-1))
    with pytest.raises(StartupError) as error:
        engine.capture([np.arange(3)], [Point(1, RESID_POST)], lambda *_: None)
    assert str(error.value) == (
        f"the model's block 1 gives states of shape (3, {2 * width}) for 3 tokens, where a "
        f"residual stream has {width} numbers per token"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_infinite_state_fails_its_document_alone(value, tmp_path):
    module = random_neox()
    with torch.no_grad():
        module.gpt_neox.embed_in.weight[13] = value
    engine = PackedEngine(load_model(ModelOptions(str(save_model(tmp_path, module)))))
    good = random_ids(40)
    good[good == 13] = 14
    poisoned = good.copy()
    poisoned[5] = 13
    before, bad, after = run(engine, [good, poisoned, good])
    assert isinstance(bad, NotFiniteError)
    assert bad.layer == engine.card.layers[0]
    assert f"layer {engine.card.layers[0]}" in str(bad)
    (alone,) = run(engine, [good])
    assert_array_equal(before, alone)
    assert_array_equal(after, alone)


def test_a_step_refuses_to_run_unpacked(neox_directory):
    """A model that runs another attention would let documents leak: no vector leaves the engine."""
    model = load_model(ModelOptions(str(neox_directory)))
    engine = PackedEngine(model)
    model.module.set_attn_implementation("eager")
    with pytest.raises(RuntimeError, match="packed attention ran 0 times for 5 blocks"):
        engine.layer_states([random_ids(4), random_ids(6)])


@pytest.mark.parametrize("way", ["_attend_heads", "_attend_by_head"])
def test_the_check_covers_attention_by_blocks(way, tmp_path, monkeypatch):
    directory = save_model(tmp_path, random_neox(hidden_size=128, num_attention_heads=2))

    def attend_to_nothing(_blocks, _query, _key, _value, out, **_):
        out.zero_()

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True})
    monkeypatch.setattr(Blocks, way, attend_to_nothing)
    with pytest.raises(StartupError, match="its states differ from transformers'"):
        load_engine(ModelOptions(model=str(directory), dtype="float32", engine="packed"))
