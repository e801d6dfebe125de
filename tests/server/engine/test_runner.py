"""What a step holds, and how it is reported."""

import time

import numpy as np
import pytest

from actvec.server.engine.runner import StepRunner
from actvec.server.engine.step import DeviceSums, StepDocument
from actvec.server.model.target import Target

IDS = np.arange(1, 10)


def test_waiting_ends_when_the_step_begins(demo_engine):
    reports = []
    before = time.monotonic()
    documents = [StepDocument.of(IDS, "short") for _ in range(2)]
    StepRunner(demo_engine, reports.append)(documents)
    after = time.monotonic()
    (report,) = reports
    assert report.tokens == 18
    for document, wait in zip(documents, report.waits, strict=True):
        assert 0 <= wait <= after - document.made
    assert before + report.waits[0] + report.seconds <= after


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("pools", [["last"], ["last", "mean", "exp_933"]])
def test_document_holds_its_vector_and_its_mean(demo_engine, pools, separate):
    target = Target((0, 2, 3), separate=separate)
    document = StepDocument.of(IDS, pools, target=target)
    (vector,) = demo_engine.run([document])
    mean = vector.nbytes // len(pools)
    assert document.held_bytes(demo_engine.card) == vector.nbytes + mean


def test_summed_document_holds_its_states(demo_engine):
    card = demo_engine.card
    sums = DeviceSums(card.d_model, "cpu", variance=False, longest=9)
    alone, summed = (StepDocument.of(IDS, "long", sums=these) for these in (None, sums))
    states = [layer[: len(IDS)] for layer in demo_engine.layer_states([IDS])]
    held = summed.held_bytes(card) - alone.held_bytes(card)
    assert held == sum(layer.nbytes for layer in states)
