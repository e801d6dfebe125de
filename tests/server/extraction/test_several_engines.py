"""Several engines share one scheduler, and some lose their device."""

import asyncio
from functools import partial

import pytest

from actvec.server.extraction.scheduler import Scheduler
from tests.server.extraction.engines import Engine
from tests.waiting import eventually


class Failing(Engine):
    """An engine whose device fails at its first step."""

    failed = False

    def __call__(self, documents):
        super().__call__(documents)
        self.failed = True
        return [RuntimeError("the device is lost")] * len(documents)


def several(*engines, **sizes):
    scheduler = Scheduler(**({"step_tokens": 100, "queued_tokens": 1000} | sizes))
    for engine in engines:
        lost = partial(getattr, engine, "failed", False)
        scheduler.start(engine.thread, engine, lost)
    return scheduler


async def busy(scheduler, *engines):
    """Return once each engine computes a step of one document, of 1, 2, ... and 100 tokens."""
    told = {}
    for engine in engines:
        engine.allowed.clear()
    for number in range(1, len(engines) + 1):
        await scheduler.lane().put(number, 100, partial(told.setdefault, number))
    for engine in engines:
        assert await asyncio.to_thread(engine.entered.wait, 60)
    return told


async def start(scheduler, engine):
    """Start an engine, and return once it holds a step."""
    engine.allowed.clear()
    scheduler.start(engine.thread, engine)
    assert await asyncio.to_thread(engine.entered.wait, 60)


async def test_engines_compute_at_the_same_time():
    first, second = Engine(), Engine()
    scheduler = several(first, second)
    told = await busy(scheduler, first, second)
    first.release()
    second.release()
    await scheduler.drain()
    assert told == {1: -1, 2: -2}
    assert sorted(first.steps + second.steps) == [[1], [2]]


async def test_several_engines_serve_lanes_in_turn():
    first, second = Engine(), Engine()
    scheduler = several(first, second, step_tokens=20)
    await busy(scheduler, first, second)
    long, short = scheduler.lane(), scheduler.lane()
    for document in range(10, 30):
        await long.put(document, 10, lambda _: None)
    await short.put(101, 10, lambda _: None)
    await short.put(102, 10, lambda _: None)
    first.release()
    second.release()
    await scheduler.drain()
    steps = first.steps[1:] + second.steps[1:]
    assert [10, 101] in steps
    assert [11, 102] in steps


async def test_draining_waits_for_every_engine():
    first, second = Engine(), Engine()
    scheduler = several(first, second)
    told = await busy(scheduler, first, second)
    drained = asyncio.create_task(scheduler.drain())
    first.release()
    await eventually(lambda: told)
    assert not drained.done()
    second.release()
    await drained
    assert told == {1: -1, 2: -2}


async def test_another_engine_computes_what_one_lost():
    hanging, well = Engine(), Engine()
    scheduler = several(hanging, well)
    told = await busy(scheduler, hanging, well)
    assert scheduler.take_out(hanging)
    assert scheduler.take_out(hanging), "twice is once"
    well.release()
    await scheduler.drain()
    assert told == {1: -1, 2: -2}
    assert sorted(well.steps) == [[1], [2]]
    assert scheduler.waiting_tokens(interactive=False) == 0
    told.clear()
    hanging.release()
    await asyncio.to_thread(hanging.thread.shutdown)
    assert hanging.steps
    assert not told, "what a lost engine computes after all counts for nothing"


@pytest.mark.parametrize("closed", [False, True])
async def test_lost_step_goes_before_all_others(closed):
    """In its order, and without the documents of a call that has ended."""
    hanging, well = Engine(), Engine()
    scheduler = several()
    odd, even, other = (scheduler.lane() for _ in range(3))
    told = {}
    for document in (1, 2, 3, 4):
        lane = odd if document % 2 else even
        await lane.put(document, 25, partial(told.setdefault, document))
    await start(scheduler, hanging)
    for document in (5, 6):
        await other.put(document, 100, partial(told.setdefault, document))
    await start(scheduler, well)
    if closed:
        even.close()
    assert scheduler.take_out(hanging)
    well.release()
    await scheduler.drain()
    left = [1, 3] if closed else [1, 2, 3, 4]
    assert well.steps == [[5], left, [6]]
    assert told == {document: -document for document in (*left, 5, 6)}
    assert scheduler.waiting_tokens(interactive=False) == 0
    hanging.release()


async def test_failed_engine_computes_nothing_more():
    failing, well = Failing(), Engine()
    scheduler = several(failing, well)
    told = await busy(scheduler, failing, well)
    failing.release()
    await eventually(lambda: scheduler.taken_out)
    lane = scheduler.lane()
    for document in range(3, 9):
        await lane.put(document, 100, partial(told.setdefault, document))
    well.release()
    await scheduler.drain()
    assert told == {document: -document for document in range(1, 9)}
    assert len(failing.steps) == 1


async def test_last_engine_is_not_taken_out():
    engine = Failing()
    scheduler = several(engine)
    told = []
    await scheduler.lane().put(1, 10, told.append)
    await eventually(lambda: told)
    assert not scheduler.take_out(engine)
    await scheduler.drain()
    assert isinstance(told[0], RuntimeError)
    assert scheduler.taken_out == 0


async def test_document_takes_two_engines_along():
    engines = [Failing() for _ in range(4)]
    scheduler = several(*engines)
    told = []
    await scheduler.lane().put(1, 10, told.append)
    await eventually(lambda: told)
    await scheduler.drain()
    assert "two devices were lost" in str(told[0])
    assert scheduler.taken_out == 2
    assert sum(len(engine.steps) for engine in engines) == 2
