"""Room for queued tokens is returned, whatever happens to its waiters."""

import asyncio

import pytest

from actvec.server.errors import DrainingError
from tests.server.extraction.test_scheduler import Engine, make


async def crowded():
    """A held engine and its scheduler, a lane that took all room, and one whose document waits."""
    engine = Engine()
    scheduler = make(engine, queued_tokens=100)
    await engine.hold(scheduler)
    first, second = scheduler.lane(), scheduler.lane()
    await first.put(1, 100, lambda _: None)
    waiting = asyncio.create_task(second.put(2, 100, lambda _: None))
    await asyncio.sleep(0)
    return engine, scheduler, first, second, waiting


async def test_cancelled_waiter_gives_its_room_back():
    engine, scheduler, first, _, waiting = await crowded()
    assert scheduler.waiting_tokens(interactive=False) == 100
    # It is granted room, and then cancelled before it runs again.
    first.close()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert scheduler.waiting_tokens(interactive=False) == 0
    await asyncio.wait_for(scheduler.lane().put(3, 100, lambda _: None), 60)
    engine.release()
    await scheduler.drain()
    assert engine.steps == [[0], [3]]


async def test_closed_lane_takes_no_room():
    engine, scheduler, first, second, waiting = await crowded()
    second.close()
    first.close()
    await asyncio.wait_for(waiting, 60)
    assert scheduler.waiting_tokens(interactive=False) == 0
    engine.release()
    await scheduler.drain()
    assert engine.steps == [[0]]


async def test_waiter_of_a_draining_scheduler_is_refused():
    """It was granted room, and the drain began before it ran again: no engine may be left."""
    engine, scheduler, first, _, waiting = await crowded()
    first.close()
    scheduler.refuse()
    with pytest.raises(DrainingError):
        await waiting
    assert scheduler.waiting_tokens(interactive=False) == 0
    engine.release()
    await scheduler.drain()
    assert engine.steps == [[0]]
