"""Steps: packed, filled while the previous one runs, and given up in time."""

import itertools
import threading

import numpy as np
import pytest

from actvec.server.engine.step import StepDocument
from actvec.server.errors import EngineLostError
from actvec.shards.steps import Steps


def document(tokens):
    return StepDocument.of(np.arange(1, tokens + 1), "long")


@pytest.fixture
def engine(demo_engine, monkeypatch):
    """The demo engine, which records the lengths of each step's documents."""
    demo_engine.ran = []
    run = type(demo_engine).run

    def noted(self, documents):
        demo_engine.ran.append([one.tokens for one in documents])
        return run(self, documents)

    monkeypatch.setattr(type(demo_engine), "run", noted)
    yield demo_engine
    del demo_engine.ran


def test_steps_pack_documents(engine):
    lengths = [60, 50, 30, 70, 10, 40, 200, 5]
    made = dict(Steps(engine, step_tokens=100)((i, document(n)) for i, n in enumerate(lengths)))
    # Before its first step it measures the memory per token.
    ran = [step for step in engine.ran if sum(step) <= 200]
    assert made.keys() == set(range(8))
    assert sorted(itertools.chain(*ran)) == sorted(lengths)
    # A document larger than a step has one for itself.
    assert [200] in ran
    assert all(sum(step) <= 100 for step in ran if step != [200])
    assert len(ran) < 6
    alone = dict(Steps(engine, step_tokens=1)((i, document(n)) for i, n in enumerate(lengths)))
    assert all(np.array_equal(made[i], alone[i]) for i in made)


def test_longest_waiting_document_runs_first(engine):
    """A document that fits no rest of a step is not passed over again and again."""
    lengths = [30, 90, *[30] * 8]
    keys = [
        key
        for key, _ in Steps(engine, step_tokens=100)(
            (i, document(n)) for i, n in enumerate(lengths)
        )
    ]
    assert keys.index(1) <= 4


def test_documents_without_a_step_come_back(engine):
    given = [("a", None), ("b", document(3)), ("c", None)]
    made = dict(Steps(engine, step_tokens=100)(given))
    assert made["a"] is made["c"] is None
    assert made["b"].shape == (1, 4, engine.card.d_model)


def test_documents_are_drawn_while_a_step_runs(held_engine):
    drawn = threading.Event()

    def documents():
        for number in range(6):
            yield number, document(40)
        drawn.set()

    running = iter(Steps(held_engine, step_tokens=40)(documents()))
    keys = []
    collecting = threading.Thread(target=lambda: keys.extend(key for key, _ in running))
    collecting.start()
    assert held_engine._entered.wait(60)
    # Not all of them: the number of waiting ones is bounded.
    assert not drawn.wait(0.1)
    held_engine.release()
    collecting.join(60)
    assert sorted(keys) == list(range(6))


def test_hanging_engine_is_lost(held_engine):
    steps = Steps(held_engine, step_tokens=40, step_timeout=0.1)
    with pytest.raises(EngineLostError, match=r"running for 0\.1 seconds"):
        list(steps([("a", document(3))]))
    held_engine.release()
    steps._thread.shutdown()


def test_failed_device_is_lost(demo_engine, monkeypatch):
    steps = Steps(demo_engine, step_tokens=40)
    monkeypatch.setattr(steps._runner, "lost", RuntimeError("no device"))
    with pytest.raises(EngineLostError, match="the device is lost: no device"):
        list(steps([("a", document(3))]))
