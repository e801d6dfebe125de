"""Pools as they are written, and their weights: numerics.md section 2."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from actvec.pooling import (
    PRESETS,
    EmptySpanError,
    NoSpanError,
    NoTokenError,
    Pool,
    PoolError,
    PoolTokens,
    PositionError,
    as_pools,
    check_identity,
    ids_digest,
    messages_digest,
    parse_pool,
    parse_pools,
    pool_states,
    pooled_mean,
    pooling_matrix,
    preset_of,
    register_pool,
    text_digest,
)

BUILT_IN = ["last", "mean", "mean_no_bos", "exp_977", "exp:0.3", "exp_tokens:8", "position:-1"]


def spans(**tokens):
    return {name: np.array(indices, dtype=np.int64) for name, indices in tokens.items()}


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("exp:0.067", "exp_933"),
        ("exp:0.0670", "exp_933"),
        ("exp:2.3e-2", "exp_977"),
        ("exp_841", "exp_841"),
        ("exp:0.10", "exp:0.1"),
        ("exp:.5", "exp:0.5"),
        ("exp:0.1000000000000000055511151231257827", "exp:0.1"),
        ("exp:0.00001", "exp:0.00001"),
        ("exp_tokens:8.0", "exp_tokens:8"),
        ("position:-12", "position:-12"),
        ("span:a.b-c_1", "span:a.b-c_1"),
    ],
)
def test_pool_has_one_canonical_form(written, canonical):
    assert parse_pool(written).name == canonical
    assert parse_pool(canonical) == parse_pool(written)


@given(st.floats(1e-6, 1e6))
def test_canonical_number_is_the_same_float(half_life):
    name = parse_pool(f"exp_tokens:{half_life!r}").name
    assert float(name.partition(":")[2]) == half_life
    assert "e" not in name.partition(":")[2]


@pytest.mark.parametrize(
    "written",
    [
        *("", ":", "first", "last:", "last:1", "mean:", "MEAN", " mean"),
        *("exp", "exp:", "exp:0", "exp:-1", "exp:nan", "exp:inf", "exp:1_0", "exp: 1", "exp:1e9"),
        *("exp_tokens:0", "position", "position:", "position:1.0", "position:-0", "position:+1"),
        *("position:01", "position:12345678901", "span:", "span:a b", "span:é", "span:" + "a" * 65),
        "x" * 10_000,
    ],
)
def test_what_is_no_pool_is_refused(written):
    with pytest.raises(PoolError) as error:
        parse_pool(written)
    assert len(str(error.value)) < 500


def test_duplicates_are_refused_in_any_form():
    with pytest.raises(PoolError, match=r"'exp:0\.067' is the same pool as 'exp_933'"):
        parse_pools(["last", "exp_933", "exp:0.067"])
    with pytest.raises(PoolError, match="at least one pool"):
        parse_pools([])


def test_preset_is_recognized_from_its_pools():
    assert preset_of(["exp:0.067"]) == "short"
    assert preset_of(["last", "exp_977", "exp:0.067", "exp:0.159"]) == "long"
    assert preset_of(["exp_977", "last", "exp_933", "exp_841"]) is None
    for name, preset in PRESETS.items():
        written = [pool.name for pool in preset]
        assert_array_equal(pooling_matrix(written, 77), pooling_matrix(name, 77))


@given(st.sampled_from(BUILT_IN), st.integers(2, 300), st.booleans(), st.integers(0, 9))
def test_weights_of_every_pool_sum_to_one(written, used, bos, dropped):
    weights = parse_pool(written).weights(PoolTokens(used, dropped, bos))
    assert weights.dtype == np.float64
    assert weights.shape == (used,)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert (weights >= 0).all()


def test_mean_weights_every_token_alike():
    assert_allclose(parse_pool("mean").weights(5), np.full(5, 0.2))


def test_mean_without_bos_leaves_out_only_bos():
    pool = parse_pool("mean_no_bos")
    assert_allclose(pool.weights(PoolTokens(3, bos=True)), [0, 0.5, 0.5])
    assert_allclose(pool.weights(PoolTokens(3)), [1 / 3] * 3)
    # BOS was dropped: the first token that is left is another
    assert_allclose(pool.weights(PoolTokens(2, dropped=1, bos=True)), [0.5, 0.5])
    with pytest.raises(NoTokenError, match="no other token"):
        pool.weights(PoolTokens(1, bos=True))


def test_half_life_in_tokens_by_hand():
    assert_allclose(parse_pool("exp_tokens:1").weights(3), np.array([1, 2, 4]) / 7)


def test_position_counts_from_either_end():
    assert_array_equal(parse_pool("position:0").weights(3), [1, 0, 0])
    assert_array_equal(parse_pool("position:2").weights(3), [0, 0, 1])
    assert_array_equal(parse_pool("position:-3").weights(3), [1, 0, 0])
    for written in ("position:3", "position:-4"):
        with pytest.raises(PositionError, match=r"it has 3 \(0 to 2, or -1 to -3"):
            parse_pool(written).weights(3)


def test_position_counts_from_the_document_start():
    tokens = PoolTokens(3, dropped=2)
    assert_array_equal(parse_pool("position:2").weights(tokens), [1, 0, 0])
    assert_array_equal(parse_pool("position:-3").weights(tokens), [1, 0, 0])
    for written in ("position:1", "position:-4"):
        with pytest.raises(PositionError, match="before the 3 last tokens"):
            parse_pool(written).weights(tokens)


def test_span_weights_its_tokens_alike():
    tokens = PoolTokens(5, spans=spans(answer=[1, 2, 4], none=[]))
    assert_allclose(parse_pool("span:answer").weights(tokens), [0, 1 / 3, 1 / 3, 0, 1 / 3])
    with pytest.raises(NoSpanError, match=r"'other'.*answer, none"):
        parse_pool("span:other").weights(tokens)
    with pytest.raises(EmptySpanError, match="it is empty or white space"):
        parse_pool("span:none").weights(tokens)


def test_cut_span_is_renormalized_over_its_rest():
    tokens = PoolTokens(3, dropped=2, spans=spans(part=[1, 2, 3], gone=[0, 1]))
    assert_allclose(parse_pool("span:part").weights(tokens), [0.5, 0.5, 0])
    with pytest.raises(EmptySpanError, match="cut off"):
        parse_pool("span:gone").weights(tokens)


def test_new_pool_takes_a_few_lines():
    def thirds(which: str) -> Pool:
        if which not in {"first", "last"}:
            raise PoolError("third:first or third:last")

        def weigh(tokens: PoolTokens):
            third = -(-tokens.used // 3)
            row = np.zeros(tokens.used)
            row[:third] = 1 / third
            return row if which == "first" else row[::-1]

        return Pool(f"third:{which}", weigh)

    register_pool("third", thirds)
    assert_allclose(pooling_matrix(["third:first", "last"], 4), [[0.5, 0.5, 0, 0], [0, 0, 0, 1]])
    with pytest.raises(PoolError, match="third:first or"):
        parse_pool("third:middle")
    with pytest.raises(ValueError, match="'third' already"):
        register_pool("third", thirds)


def test_weights_must_sum_to_one():
    with pytest.raises(ValueError, match="pool half gives weights"):
        Pool("half", lambda tokens: np.full(tokens.used, 0.5 / tokens.used)).weights(3)


@pytest.mark.parametrize("written", [*BUILT_IN, "span:answer"])
def test_pool_survives_pickling(written):
    pool = pickle.loads(pickle.dumps(parse_pool(written)))  # noqa: S301 - our own bytes
    assert pool == parse_pool(written)
    tokens = PoolTokens(9, spans=spans(answer=[3]))
    assert_array_equal(pool.row(tokens), parse_pool(written).row(tokens))


def test_separate_layers_pool_as_each_layer_alone():
    states = np.random.default_rng(0).normal(size=(3, 7, 4)).astype(np.float32)
    vector = pool_states(["mean", "last"], states).reshape(3, 2, 4)
    for layer, alone in zip(vector, states, strict=True):
        assert_allclose(layer.reshape(-1), pool_states(["mean", "last"], alone), rtol=1e-6)


def test_identity_holds_for_layers_and_pools():
    random = np.random.default_rng(1)
    states, mean = random.normal(size=(2, 6, 4)), random.normal(size=(2, 9, 4))
    pools = as_pools(["span:s", "position:1", "mean_no_bos", "exp_tokens:2"])
    tokens = PoolTokens(5, dropped=1, bos=True, spans=spans(s=[0, 2, 3]))
    used = states[:, 1:]
    raw = pool_states(pools, used, tokens)
    centered = pool_states(pools, used - mean[:, :5][:, ::-1], tokens)
    checks = check_identity(pools, raw, centered, mean, tokens)
    assert [(check.layer, check.pool) for check in checks] == [
        (layer, pool.name) for layer in range(2) for pool in pools
    ]
    assert all(check.relative_error < 1e-6 for check in checks)
    predicted = pooled_mean(pools, mean, tokens)
    assert_allclose(raw - centered, predicted, atol=1e-6)


def test_digests_follow_the_contract():
    assert text_digest("abc").hex().startswith("ba7816bf")
    for digest, canonical in (
        (
            text_digest("é", [("b", 0, 1), ("a", 0, 1)]),
            r'{"spans":[["a",0,1],["b",0,1]],"text":"\u00e9"}',
        ),
        (messages_digest([("user", "hi")]), '{"messages":[{"content":"hi","role":"user"}]}'),
        (ids_digest([1, 2]), '{"token_ids":[1,2]}'),
        (ids_digest([1], [("a", 0, 1)]), '{"spans":[["a",0,1]],"token_ids":[1]}'),
    ):
        assert digest == text_digest(canonical)
