"""Centering by a mean in memory, and the cache of such means and of their pooled means."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from actvec.pooling import PoolTokens, parse_pools, pooled_mean
from actvec.server.means.centering import Centering, Kept, LoadedMean
from actvec.server.means.format import MeanTensors
from actvec.server.means.record import MeanRecord
from actvec.server.model.target import Target
from tests.server.means.test_store import MODEL

POOLS = parse_pools(["mean", "last"])
TOKENS = PoolTokens(5)
LAYERS = (1, 2, 4)
MEAN = np.random.default_rng(0).normal(size=(3, 9, 4)).astype(np.float32)


def centering(target, mean=MEAN, **model):
    record = MeanRecord(model=replace(MODEL, layers=LAYERS, **model))
    return Centering(LoadedMean(record, MeanTensors(mean, None, None, record)), target)


@pytest.mark.parametrize("layers", [(1, 2, 4), (1, 4), (2,)])
def test_mean_of_separate_layers_centers_some_of_them(layers):
    by_layer = np.stack(
        [pooled_mean(POOLS, MEAN[LAYERS.index(layer)], TOKENS).reshape(2, 4) for layer in layers]
    )
    separate = centering(Target(layers, separate=True), separate_layers=True)
    assert_array_equal(separate.pooled(POOLS, TOKENS), by_layer)
    averaged = centering(Target(layers), separate_layers=True).pooled(POOLS, TOKENS)
    assert_allclose(averaged, by_layer.mean(0, keepdims=True), rtol=1e-6)


def test_mean_of_averaged_layers_centers_their_average():
    pooled = centering(Target(LAYERS), MEAN[0]).pooled(POOLS, TOKENS)
    assert_array_equal(pooled, pooled_mean(POOLS, MEAN[0], TOKENS).reshape(1, 2, 4))


def values_of(kept):
    """Asks for values of four bytes by their letter; notes those that are made."""
    made = []

    def ask(letters):
        for letter in letters:
            assert kept.get(letter, lambda one=letter: made.append(one) or 4 * one) == 4 * letter
        return "".join(made)

    return ask


def test_cache_makes_a_value_once():
    assert values_of(Kept(12, len))("abcabccba") == "abc"


def test_cache_drops_the_value_not_used_longest():
    ask = values_of(Kept(12, len))
    assert ask("abcad") == "abcd"
    assert ask("acd") == "abcd"
    assert ask("b") == "abcdb"


def test_cache_keeps_one_value_beyond_its_capacity():
    ask = values_of(Kept(3, len))
    assert ask("aaa") == "a"
    assert ask("bba") == "aba"
