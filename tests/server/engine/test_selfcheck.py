"""How the self-check measures, and which documents it takes."""

import math
from dataclasses import replace

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from actvec.server.config import ModelOptions
from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.selfcheck import SelfCheck, _lengths, distance, trusted
from actvec.server.model.loading import load_model

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def model():
    """A model of the test's own: the check sets its attention."""
    return load_model(ModelOptions())


def states(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_distance_has_two_scales():
    expected = states([3, 4], [0, 12])
    document, token = distance([states([3, 4.5], [0, 12])], [expected])
    assert document == pytest.approx(0.5 / 13)
    assert token == pytest.approx(0.5 / 5)
    assert distance([expected], [expected]) == (0, 0)


def test_distance_is_that_of_the_worst_layer():
    layers = [states([10, 0]), states([10, 0]), states([10, 0])]
    found = [states([10, 1]), states([10, 3]), states([10, 2])]
    assert distance(found, layers) == pytest.approx((0.3, 0.3))


@pytest.mark.parametrize("value", [NAN, INF])
def test_states_may_be_infinite_where_the_models_are(value):
    expected = states([value, 0], [4, 0])
    assert distance([states([value, 1], [4, 1])], [expected]) == (0.25, 0.25)
    assert distance([states([1, 0], [4, 0])], [expected]) == (INF, INF)
    assert distance([states([value, 0], [value, 0])], [expected]) == (INF, INF)
    nowhere = states([value, 0], [value, 0])
    assert distance([nowhere], [nowhere]) == (0, 0)


@pytest.mark.parametrize(
    ("thresholds", "longest", "lengths"),
    [
        ([], 1000, (1000, 64)),
        ([], 30, (30, 30)),
        ([100, 200], 1000, (1000, 224)),
        ([100, 200], 210, (210, 210)),
        ([100, 200], 200, (200, 124)),
    ],
    ids=["none", "short", "last", "cut", "unreached"],
)
def test_long_document_exceeds_the_last_threshold(thresholds, longest, lengths):
    assert _lengths(thresholds, longest, pace=0.001, seconds=60) == lengths


def test_threshold_too_slow_to_check_bounds_the_documents(caplog):
    assert _lengths([100, 200], 1000, pace=1, seconds=224) == (1000, 224)
    assert not caplog.records
    assert _lengths([100, 200], 1000, pace=1, seconds=223) == (200, 124)
    assert "more than 200 tokens are not served" in caplog.text
    assert "take 224 seconds here, of 223" in caplog.text
    assert _lengths([100, 200], 1000, pace=1, seconds=math.nextafter(124, 0)) == (100, 64)


def test_fast_check_covers_every_threshold(model):
    check = SelfCheck.of(replace(model, thresholds=[100]), 200, seconds=60)
    assert check.longest == 200
    assert [len(ids) for ids in check.documents][:2] == [40, 124]


def test_tolerance_in_16_bits_covers_the_noise(neox_directory):
    model = load_model(ModelOptions(str(neox_directory), dtype="bfloat16"))
    check = SelfCheck.of(model, 100, seconds=600)
    assert check.tolerance >= 1e-2
    assert check(PackedEngine(model, arranged=False)).reason is None


def test_eager_attention_replaces_a_wrong_one(model, monkeypatch):
    assert trusted(model) is model
    fused = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def wrong(*args, **kwargs):
        out, weights = fused(*args, **kwargs)
        return 2 * out, weights

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", wrong)
    assert trusted(model).attention == "eager"
