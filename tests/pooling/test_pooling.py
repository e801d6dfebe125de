"""Pooling is one matrix: numerics.md section 2, by hand and by property."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from actvec.pooling import (
    EXP_841,
    EXP_933,
    EXP_977,
    LAST,
    MODES,
    pool_states,
    pooling_matrix,
    pools,
)

lengths = st.integers(min_value=1, max_value=4096)
exponential = pytest.mark.parametrize("pool", [EXP_977, EXP_933, EXP_841], ids=lambda p: p.name)


def test_modes_name_their_pools_in_order():
    assert list(MODES) == ["short", "long"]
    assert [pool.name for pool in pools("short")] == ["exp_933"]
    assert [pool.name for pool in pools("long")] == ["last", "exp_977", "exp_933", "exp_841"]


def test_depths_are_rounded_normal_tails():
    assert [pool.depth for pool in pools("long")] == [0.0, 0.023, 0.067, 0.159]


def test_exp_841_of_two_tokens_by_hand():
    # distances 1, 0; half-life 0.318 tokens: 2 ** (-1 / 0.318) = 0.113074, and 1
    assert_allclose(EXP_841.weights(2), [0.101587, 0.898413], atol=1e-6)


def test_exp_933_of_three_tokens_by_hand():
    # half-life 0.201 tokens: r = 2 ** (-1 / 0.201) = 0.0317936, weights r^2 : r : 1
    total = 0.0317936**2 + 0.0317936 + 1
    by_hand = [0.0317936**2 / total, 0.0317936 / total, 1 / total]
    assert_allclose(EXP_933.weights(3), by_hand, rtol=1e-5)


def test_weight_halves_with_every_half_life():
    # 1000 tokens at depth 0.067: the half-life is 67 tokens exactly
    weights = EXP_933.weights(1000)
    assert_allclose(weights[-1 - 67], weights[-1] / 2, rtol=1e-12)
    assert_allclose(weights[-1 - 134], weights[-1] / 4, rtol=1e-12)


def test_decay_is_a_half_life():
    # numerics.md: decay constant ln 2 / 0.159 = 4.359 per document, not 4.272
    weights = EXP_841.weights(1000)
    assert np.log(weights[-1] / weights[-2]) * 1000 == pytest.approx(4.359, abs=1e-3)


@exponential
def test_half_life_has_half_the_weight(pool):
    tokens = 1_000_000
    within = pool.weights(tokens)[-round(pool.depth * tokens) :].sum()
    # exactly half of an endless document: this one lacks the tail 2 ** (-1 / depth)
    endless = within * (1 - 2 ** (-1 / pool.depth))
    assert endless == pytest.approx(0.5, abs=1e-4)


@given(lengths)
def test_rows_sum_to_one_and_are_positive(tokens):
    for pool in pools("long"):
        weights = pool.weights(tokens)
        assert weights.shape == (tokens,)
        assert weights.dtype == np.float64
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        assert (weights >= 0).all()
        assert (np.diff(weights) >= 0).all()


@given(lengths, st.sampled_from(sorted(MODES)))
def test_matrix_is_the_float64_weights_rounded_once(tokens, mode):
    matrix = pooling_matrix(mode, tokens)
    assert matrix.dtype == np.float32
    assert_array_equal(matrix, [np.float32(pool.weights(tokens)) for pool in pools(mode)])


@given(lengths)
def test_short_is_the_third_pool_of_long(tokens):
    assert_array_equal(pooling_matrix("short", tokens)[0], pooling_matrix("long", tokens)[2])


@pytest.mark.parametrize("mode", MODES)
def test_one_token_needs_no_special_case(mode):
    assert_array_equal(pooling_matrix(mode, 1), np.ones((len(pools(mode)), 1)))


def test_last_token_takes_the_last_state():
    states = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert_array_equal(pool_states("long", states)[:3], states[-1])
    assert_array_equal(LAST.weights(4), [0, 0, 0, 1])


@given(lengths)
def test_pooling_equal_states_gives_that_state(tokens):
    states = np.tile(np.float32([1.5, -250.0]), (tokens, 1))
    assert_allclose(pool_states("long", states).reshape(4, 2), [[1.5, -250.0]] * 4, rtol=1e-5)


def test_bad_arguments_say_what_was_wrong():
    with pytest.raises(ValueError, match="at least one token, not 0"):
        pooling_matrix("long", 0)
    with pytest.raises(ValueError, match="'medium'; the modes are short, long"):
        pooling_matrix("medium", 5)
    with pytest.raises(ValueError, match=r"\[T, D\]"):
        pool_states("short", np.zeros(5))
