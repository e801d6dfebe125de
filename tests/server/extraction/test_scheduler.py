"""The scheduler with documents that are numbers and an engine that is a function."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actvec.server.errors import DrainingError, QueueFullError
from actvec.server.extraction.scheduler import Scheduler
from tests.server.extraction.engines import Engine


def make(engine, step_tokens=100, queued_tokens=1000):
    scheduler = Scheduler(step_tokens=step_tokens, queued_tokens=queued_tokens)
    scheduler.start(engine.thread, engine)
    return scheduler


def next_step(scheduler):
    """The documents of the step that an engine would take now."""
    return [ticket.document for _, ticket in scheduler._next_step()]


async def test_every_document_gets_its_own_outcome():
    scheduler = make(Engine())
    outcomes = {}
    lane = scheduler.lane()
    for document in range(200):
        await lane.put(document, 7, lambda outcome, d=document: outcomes.update({d: outcome}))
    await scheduler.drain()
    assert outcomes == {document: -document for document in range(200)}


async def test_documents_of_concurrent_calls_share_a_step():
    engine = Engine()
    scheduler = make(engine)
    await engine.hold(scheduler)
    for document in (1, 2, 3):
        await scheduler.lane(interactive=True).put(document, 10, lambda _: None)
    engine.release()
    await scheduler.drain()
    assert engine.steps == [[0], [1, 2, 3]]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 150), max_size=60), st.integers(1, 5))
def test_step_keeps_to_the_budget(costs, lanes):
    async def run():
        engine = Engine()
        scheduler = Scheduler(step_tokens=100, queued_tokens=10_000)
        lane = [scheduler.lane(interactive=index == 0) for index in range(lanes)]
        done = []
        for index, cost in enumerate(costs):
            await lane[index % lanes].put((index, cost), cost, done.append)
        # `-document` is not for pairs
        run = lambda step: (engine.steps.append(step), step)[1]  # noqa: E731
        scheduler.start(ThreadPoolExecutor(1), run)
        await scheduler.drain()
        assert sorted(done) == list(enumerate(costs))
        for step in engine.steps:
            assert len(step) == 1 or sum(cost for _, cost in step) <= 100

    asyncio.run(run())


async def test_lanes_take_turns_however_long_they_are():
    engine = Engine()
    scheduler = make(engine, step_tokens=40)
    await engine.hold(scheduler)
    long, short = scheduler.lane(), scheduler.lane()
    for document in range(1, 20):
        await long.put(document, 10, lambda _: None)
    for document in (101, 102):
        await short.put(document, 10, lambda _: None)
    engine.release()
    await scheduler.drain()
    assert engine.steps[1] == [1, 101, 2, 102]


async def test_interactive_documents_take_half():
    engine = Engine()
    scheduler = make(engine, step_tokens=40)
    await engine.hold(scheduler)
    bulk = scheduler.lane()
    for document in (1, 2):
        await bulk.put(document, 10, lambda _: None)
    for document in range(101, 107):
        await scheduler.lane(interactive=True).put(document, 10, lambda _: None)
    engine.release()
    await scheduler.drain()
    # And all of a step for which no other documents wait.
    assert engine.steps[1:] == [[101, 102, 1, 2], [103, 104, 105, 106]]


async def test_large_document_does_not_starve():
    engine = Engine()
    scheduler = make(engine, step_tokens=100, queued_tokens=100_000)
    await engine.hold(scheduler)
    lane = scheduler.lane()
    for document in range(1, 31):
        await lane.put(document, 90 if document == 2 else 30, lambda _: None)
    engine.release()
    await scheduler.drain()
    assert engine.steps[1] == [1, 3, 4]
    assert engine.steps[2] == [2]


async def test_large_document_goes_before_the_lanes_that_are_due():
    """The documents behind it that still fitted have cost its lane the turn."""
    engine = Engine()
    scheduler = make(engine, step_tokens=100)
    await engine.hold(scheduler)
    for documents in ([(1, 60)], [(2, 80), (3, 20)], [(4, 50)]):
        lane = scheduler.lane()
        for document, tokens in documents:
            await lane.put(document, tokens, lambda _: None)
    engine.release()
    await scheduler.drain()
    assert engine.steps[1:] == [[1, 3], [2], [4]]


async def test_interactive_document_passes_a_large_one():
    """But the large one waits no more than once."""
    scheduler = Scheduler(step_tokens=100, queued_tokens=1000)

    async def ask(document):
        await scheduler.lane(interactive=True).put(document, 10, lambda _: None)

    lane = scheduler.lane()
    for document, tokens in [(1, 60), (2, 90), (3, 90)]:
        await lane.put(document, tokens, lambda _: None)
    assert next_step(scheduler) == [1]
    await ask(101)
    assert next_step(scheduler) == [101]
    await ask(102)
    assert next_step(scheduler) == [2]
    await ask(103)
    assert next_step(scheduler) == [102, 103]
    assert next_step(scheduler) == [3]


async def test_interactive_document_shares_the_step_of_a_small_one():
    """Which leaves it room; also if it is due."""
    scheduler = Scheduler(step_tokens=100, queued_tokens=1000)
    lane = scheduler.lane()
    for document, tokens in [(1, 80), (2, 40), (3, 30)]:
        await lane.put(document, tokens, lambda _: None)
    assert next_step(scheduler) == [1]
    await scheduler.lane(interactive=True).put(101, 10, lambda _: None)
    assert next_step(scheduler) == [2, 101, 3]


async def test_lanes_that_do_not_fit_keep_their_turns():
    scheduler = Scheduler(step_tokens=100, queued_tokens=1000)
    for document, tokens in [(1, 60), (2, 90), (3, 90), (4, 90)]:
        await scheduler.lane().put(document, tokens, lambda _: None)
    assert [next_step(scheduler) for _ in range(4)] == [[1], [2], [3], [4]]


async def test_first_lane_that_is_due_leads_unless_it_closed():
    scheduler = Scheduler(step_tokens=100, queued_tokens=1000)
    lanes = [scheduler.lane() for _ in range(4)]
    for lane, document, tokens in zip(lanes, (1, 2, 3, 4), (60, 90, 90, 90), strict=True):
        await lane.put(document, tokens, lambda _: None)
    assert next_step(scheduler) == [1]
    assert next_step(scheduler) == [2]
    lanes[2].close()
    assert next_step(scheduler) == [4]


async def test_small_documents_fill_the_step():
    engine = Engine()
    scheduler = make(engine, step_tokens=100)
    await engine.hold(scheduler)
    lane = scheduler.lane()
    for document, tokens in [(1, 70), (2, 60), (3, 30), (4, 40)]:
        await lane.put(document, tokens, lambda _: None)
    engine.release()
    await scheduler.drain()
    assert engine.steps[1:] == [[1, 3], [2, 4]]


async def test_bulk_lane_waits_for_room():
    """Also for what fits, while others wait: small ones would leave one beyond all room none."""
    engine = Engine()
    scheduler = make(engine, queued_tokens=100)
    await engine.hold(scheduler)
    for document in range(1, 7):
        await scheduler.lane().put(document, 10, lambda _: None)
    waiting = [
        asyncio.create_task(scheduler.lane().put(document, tokens, lambda _: None))
        for document, tokens in ((7, 150), (8, 10))
    ]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    engine.release()
    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    await scheduler.drain()


@pytest.mark.parametrize("interactive", [False, True])
async def test_document_beyond_all_room_is_queued_alone(interactive):
    engine = Engine()
    scheduler = make(engine, queued_tokens=100)
    lane = scheduler.lane(interactive=interactive)
    await asyncio.wait_for(lane.put(1, 150, lambda _: None), 60)
    await scheduler.drain()
    assert engine.steps == [[1]]


async def test_waiters_get_room_in_turn():
    engine = Engine()
    scheduler = make(engine, step_tokens=10, queued_tokens=10)
    await engine.hold(scheduler)
    order = []

    async def feed(name):
        lane = scheduler.lane()
        for _ in range(5):
            await lane.put(1, 10, lambda _: None)
            order.append(name)

    feeds = [asyncio.create_task(feed(name)) for name in "ab"]
    await asyncio.sleep(0)
    engine.release()
    await asyncio.gather(*feeds)
    await scheduler.drain()
    # a took the room and was first in line before b came; from then on they alternate
    assert "".join(order) == "a" + "ab" * 4 + "b"


async def test_interactive_lane_is_refused_without_room():
    engine = Engine()
    scheduler = make(engine, queued_tokens=100)
    await engine.hold(scheduler)
    await scheduler.lane(interactive=True).put(1, 95, lambda _: None)
    with pytest.raises(QueueFullError, match="100 tokens of interactive calls wait already"):
        await scheduler.lane(interactive=True).put(2, 10, lambda _: None)
    # bulk has room of its own
    await scheduler.lane().put(3, 10, lambda _: None)
    engine.release()
    await scheduler.drain()


async def test_closed_lane_leaves_the_queue():
    engine = Engine()
    scheduler = make(engine, queued_tokens=100)
    await engine.hold(scheduler)
    cancelled, other = scheduler.lane(), scheduler.lane()
    told = []
    for document in (1, 2):
        await cancelled.put(document, 50, told.append)
    waiting = asyncio.create_task(other.put(3, 100, told.append))
    await asyncio.sleep(0)
    cancelled.close()
    await asyncio.wait_for(waiting, 60)
    engine.release()
    await scheduler.drain()
    assert engine.steps == [[0], [3]]
    assert told == [-3]


async def test_closed_lane_gets_no_outcome():
    engine = Engine()
    scheduler = make(engine)
    told = []
    lane = await engine.hold(scheduler, told.append)
    lane.close()
    engine.release()
    await scheduler.drain()
    assert engine.steps == [[0]]
    assert told == []


@pytest.mark.parametrize("granted", [False, True])
async def test_cancelled_wait_keeps_the_room(granted):
    engine = Engine()
    scheduler = make(engine, queued_tokens=100)
    await engine.hold(scheduler)
    first, lane = scheduler.lane(), scheduler.lane()
    await first.put(1, 100, lambda _: None)
    waiting = [asyncio.create_task(lane.put(d, 100, lambda _: None)) for d in (2, 3)]
    await asyncio.sleep(0)
    if granted:
        # The room is given to the first one in line, which is cancelled before it takes it.
        first.close()
    waiting[0].cancel()
    engine.release()
    await asyncio.wait_for(waiting[1], 60)
    await scheduler.drain()
    assert engine.steps == [[0], *([] if granted else [[1]]), [3]]


async def test_engine_error_reaches_each_document():
    def run(documents):
        if 13 in documents:
            raise RuntimeError("no")
        return documents

    scheduler = Scheduler(step_tokens=10, queued_tokens=100)
    told = {}
    lane = scheduler.lane()
    for document in (1, 13, 2):
        await lane.put(document, 10, lambda outcome, d=document: told.update({d: outcome}))
    scheduler.start(ThreadPoolExecutor(1), run)
    await scheduler.drain()
    assert told[1] == 1
    assert isinstance(told[13], RuntimeError)
    assert told[2] == 2


async def test_draining_computes_queued_documents_only():
    engine = Engine()
    scheduler = make(engine, queued_tokens=20)
    await engine.hold(scheduler)
    told = []
    lane = scheduler.lane()
    for document in (1, 2):
        await lane.put(document, 10, told.append)
    in_line = asyncio.create_task(lane.put(3, 10, told.append))
    await asyncio.sleep(0)
    drained = asyncio.create_task(scheduler.drain())
    await asyncio.sleep(0)
    with pytest.raises(DrainingError):
        await in_line
    with pytest.raises(DrainingError):
        await scheduler.lane().put(4, 10, told.append)
    engine.release()
    await drained
    assert told == [-1, -2]
