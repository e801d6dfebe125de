"""raw - centered = pooled mean: cases that hold, and cases that do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from actvec.pooling import MODES, check_identity, pool_states, pooled_mean

D = 5


def states(tokens, seed):
    return np.random.default_rng(seed).normal(0, 100, (tokens, D)).astype(np.float32)


@given(st.sampled_from(sorted(MODES)), st.integers(1, 200), st.integers(0, 50), st.integers(0, 99))
def test_identity_holds_for_centered_states(mode, tokens, more, seed):
    document, mean = states(tokens, seed), states(tokens + more, seed + 1)
    raw = pool_states(mode, document)
    centered = pool_states(mode, document - mean[:tokens][::-1])
    for pool, check in zip(
        MODES[mode], check_identity(mode, raw, centered, mean, tokens), strict=True
    ):
        assert check.pool == pool.name
        assert check.relative_error < 1e-4
        assert check.cosine > 1 - 1e-6


def test_the_numbers_by_hand():
    mean = np.array([[3.0, 4.0, 0.0, 0.0, 0.0]])
    raw, centered = np.array([3.0, 8.0, 0.0, 0.0, 0.0]), np.zeros(D)
    (check,) = check_identity("short", raw, centered, mean, tokens=1)
    assert (check.error, check.predicted) == (4.0, 5.0)
    assert_allclose(check.difference, np.sqrt(73))
    assert_allclose(check.cosine, 41 / (5 * np.sqrt(73)))
    assert check.relative_error == 0.8


def test_another_mean_is_found_out():
    document, mean, other = states(30, 0), states(30, 1), states(30, 2)
    raw = pool_states("long", document)
    centered = raw - pooled_mean("long", other, 30)
    assert all(c.cosine < 0.9 for c in check_identity("long", raw, centered, mean, 30))


def test_a_mean_of_zeros_predicts_no_difference():
    raw = np.ones(D)
    (check,) = check_identity("short", raw, raw, np.zeros((4, D)), tokens=4)
    assert (check.cosine, check.relative_error) == (1.0, 0.0)
    (check,) = check_identity("short", raw, 2 * raw, np.zeros((4, D)), tokens=4)
    assert (check.cosine, check.relative_error) == (0.0, 1.0)


def test_identity_fails_for_nan():
    for mean in (np.zeros((4, D)), np.ones((4, D))):
        (check,) = check_identity("short", np.full(D, np.nan), np.ones(D), mean, tokens=4)
        assert not check.relative_error <= 1e-4


def test_vectors_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"exp_841 by a mean \[3, 5\] have 20 numbers"):
        check_identity("long", np.zeros(5), np.zeros(5), np.zeros((3, 5)), tokens=3)
