"""Sums of states on the engine's device, against those of `MeanAccumulator`."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from actvec.pooling import MeanAccumulator
from actvec.server.engine.step import DeviceSums, EngineSums

D, LONGEST = 3, 40

lengths = st.lists(st.integers(1, LONGEST), min_size=1, max_size=12)


def states_of(tokens, layers):
    return np.random.default_rng(tokens).normal(0, 100, (layers, tokens, D)).astype(np.float32)


def sums_of(device="cpu", **options):
    return DeviceSums(D, device, longest=LONGEST, **options)


def add(sums, states):
    sums.add(*map(torch.from_numpy, states))


@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("layers", [None, 2])
@settings(max_examples=25)
@given(lengths)
def test_sums_are_the_accumulators(layers, variance, lengths):
    sums, expected = (make(variance=variance, layers=layers) for make in (sums_of, accumulator))
    for tokens in lengths:
        states = states_of(tokens, layers or 1)
        add(sums, states)
        expected.add(states if layers else states[0])
    found = sums.take()
    assert_array_equal(found.counts, expected.counts)
    assert_allclose(found.sums, expected.sums, rtol=1e-12, atol=1e-9)
    assert (found.squares is not None) == variance
    if variance:
        assert_allclose(found.squares, expected.squares, rtol=1e-12)


def accumulator(**options):
    return MeanAccumulator(D, **options)


def test_room_never_exceeds_the_longest_document():
    sums = sums_of(variance=True)
    for tokens in (1, 15, 16, 25, 39, 40):
        add(sums, states_of(tokens, 1))
        assert tokens <= len(sums._sums[0]) <= LONGEST
    assert len(sums._sums[0]) == LONGEST


def test_engines_sum_apart_and_merge():
    made = []
    sums = EngineSums(lambda device: made.append(device) or sums_of(device, variance=False))
    both_run = threading.Barrier(2)

    def run():
        both_run.wait(30)
        for tokens in (3, 5):
            add(sums, states_of(tokens, 1))
        both_run.wait(30)

    engines = [threading.Thread(target=run) for _ in range(2)]
    for engine in engines:
        engine.start()
    for engine in engines:
        engine.join()
    assert made == ["cpu", "cpu"]
    total = sums.take(accumulator())
    assert total.documents == 4
    alone = accumulator()
    for tokens in (3, 5, 3, 5):
        alone.add(states_of(tokens, 1)[0])
    assert_allclose(total.sums, alone.sums, rtol=1e-12)


def test_no_document_is_the_empty_mean():
    empty = accumulator()
    assert EngineSums(sums_of).take(empty) is empty
    assert sums_of(variance=False).take().documents == 0
