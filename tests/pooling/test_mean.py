"""The corpus mean and centering: numerics.md sections 3 and 4, by hand and by property."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from actvec.pooling import MODES, MeanAccumulator, pool_states, pooled_mean

D = 3


def documents_of(lengths, seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(0, 100, (n, D)).astype(np.float32) for n in lengths]


def accumulated(documents, **options):
    accumulator = MeanAccumulator(D, **options)
    for states in documents:
        accumulator.add(states)
    return accumulator


many_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=20)


def test_positions_count_from_the_end_by_hand():
    accumulator = MeanAccumulator(1)
    accumulator.add(np.array([[1.0], [2.0], [3.0]]))
    accumulator.add(np.array([[10.0]]))
    assert_array_equal(accumulator.counts, [2, 1, 1])
    assert_array_equal(accumulator.mean(), [[6.5], [2.0], [1.0]])
    assert (accumulator.documents, accumulator.tokens, accumulator.max_tokens) == (2, 4, 3)


def test_nothing_added_is_an_empty_mean():
    empty = MeanAccumulator(D)
    assert (empty.documents, empty.tokens, empty.max_tokens) == (0, 0, 0)
    assert empty.mean().shape == (0, D)


@given(many_lengths)
def test_the_formula(lengths):
    documents = documents_of(lengths)
    mean = accumulated(documents).mean()
    for j in range(max(lengths)):
        reaching = [
            states[len(states) - 1 - j].astype(float) for states in documents if len(states) > j
        ]
        assert_allclose(mean[j], np.mean(reaching, axis=0), rtol=1e-6)


@given(many_lengths, st.randoms(), st.integers(1, 7))
def test_neither_order_nor_split_matters(lengths, random, parts):
    documents = documents_of(lengths)
    whole = accumulated(documents, variance=True)
    random.shuffle(documents)
    merged = MeanAccumulator(D, variance=True)
    for part in range(parts):
        merged.merge(accumulated(documents[part::parts], variance=True))
    assert_array_equal(merged.counts, whole.counts)
    assert_allclose(merged.sums, whole.sums, rtol=1e-12, atol=1e-9)
    assert_allclose(merged.squares, whole.squares, rtol=1e-12)


@given(many_lengths)
def test_variance_is_numpys(lengths):
    documents = documents_of(lengths)
    variance = accumulated(documents, variance=True).variance()
    for j in range(max(lengths)):
        reaching = [
            states[len(states) - 1 - j].astype(float) for states in documents if len(states) > j
        ]
        assert_allclose(variance[j], np.var(reaching, axis=0), rtol=1e-5, atol=1e-7)


def test_no_variance_where_none_was_asked_for():
    assert accumulated(documents_of([3])).variance() is None


@given(st.integers(1, 60), st.sampled_from(sorted(MODES)))
def test_centering_commutes_with_pooling(tokens, mode):
    """The identity: raw - centered = W(T) @ M[:T]."""
    mean = accumulated(documents_of([60, 55, 30, 61, 60])).mean()
    (states,) = documents_of([tokens], seed=1)
    centered_states = states - mean[:tokens][::-1]
    difference = pool_states(mode, states) - pool_states(mode, centered_states)
    assert_allclose(difference, pooled_mean(mode, mean, tokens), atol=1e-3)


def test_short_mean_is_refused():
    with pytest.raises(ValueError, match="the mean has 5 positions, the document 6 tokens"):
        pooled_mean("short", np.zeros((5, D)), 6)


def test_states_that_are_not_finite_never_enter():
    accumulator = MeanAccumulator(D)
    with pytest.raises(ValueError, match="not finite"):
        accumulator.add(np.full((2, D), np.nan))
    assert accumulator.documents == 0


def test_what_does_not_fit_is_refused():
    accumulator = MeanAccumulator(D, variance=True)
    with pytest.raises(ValueError, match=r"sums are \[2, 3\]"):
        accumulator.add(np.zeros((2, D + 1)))
    with pytest.raises(ValueError, match="keeps squares"):
        accumulator.merge(accumulated(documents_of([4])))
    rebuilt = MeanAccumulator.from_sums(np.array([1]), np.ones((1, D)), np.ones((1, D)))
    accumulator.merge(rebuilt)
    assert accumulator.documents == 1


def test_separate_layers_have_separate_means():
    documents = [np.random.default_rng(n).normal(size=(2, n, D)) for n in (3, 1, 5)]
    together = MeanAccumulator(D, variance=True, layers=2)
    for states in documents:
        together.add(states)
    assert together.mean().shape == (2, 5, D)
    assert (together.documents, together.tokens, together.max_tokens) == (3, 9, 5)
    rebuilt = MeanAccumulator.from_sums(together.counts, together.sums, together.squares)
    for layer in range(2):
        alone = accumulated([states[layer] for states in documents], variance=True)
        assert_array_equal(together.sums[layer], alone.sums)
        assert_array_equal(together.mean()[layer], alone.mean())
        assert_array_equal(rebuilt.variance()[layer], alone.variance())
    with pytest.raises(ValueError, match=r"sums are \[2, 3, 3\]"):
        together.merge(accumulated(documents_of([3]), variance=True))
