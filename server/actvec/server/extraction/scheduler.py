"""The scheduler: it queues the documents of all calls and fills steps from them.

It knows neither gRPC nor torch: a document is anything with a cost in tokens, and an engine is a
function that maps a step of documents to as many outcomes, on a thread of its own. Each engine
takes the next step once it has computed one; everything else happens on one event loop.

Each call queues in a lane. A step takes one document per lane in turn, so calls share the machine
however many documents each has. Interactive lanes go first, but take at most half of a step while
others wait. If a large bulk document is due and would leave them no room, they get a short step
before it. Interactive and bulk lanes each have a bound on queued tokens: beyond it, bulk lanes wait
in line for room, and interactive ones are refused.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Generic

from actvec.server.errors import DrainingError, EngineError, QueueFullError
from actvec.server.extraction.lanes import D, Lane, R, Room, Step, Ticket

Run = Callable[[Sequence[D]], Sequence[R | Exception]]


@dataclass(eq=False)
class _Engine(Generic[D, R]):
    """What computes steps.

    Attributes:
        run: Computes a step.
        lost: Returns whether it can compute no other.
        step: The documents that it computes now.
        taken_out: Whether its outcomes are ignored.
    """

    run: Run[D, R]
    lost: Callable[[], bool]
    step: list[tuple[Lane[D, R], Ticket[D, R]]] = field(default_factory=list)
    taken_out: bool = False


class Scheduler(Generic[D, R]):
    """Fills steps from lanes and computes them, on one engine or several.

    Create it on the event loop of the calls.

    Args:
        step_tokens: Tokens of a step; a larger document is a step by itself.
        queued_tokens: Limit on queued tokens, for bulk and for interactive lanes each.

    Attributes:
        taken_out: How many engines were taken out.
    """

    def __init__(self, *, step_tokens: int, queued_tokens: int) -> None:
        self.taken_out = 0
        self._engines: list[_Engine[D, R]] = []
        self._step_tokens = step_tokens
        self._rooms = {True: Room(queued_tokens), False: Room(queued_tokens)}
        self._ready: dict[bool, deque[Lane[D, R]]] = {True: deque(), False: deque()}
        self._overdue: Lane[D, R] | None = None
        self._making_way = False
        self._changed = threading.Condition()
        self._draining = False
        self._loop = asyncio.get_running_loop()
        self._started = False
        self._finished = asyncio.Event()

    def start(
        self, thread: Executor, run: Run[D, R], lost: Callable[[], bool] = lambda: False
    ) -> None:
        """Start to compute on an engine.

        Args:
            thread: Has a single thread, which is busy until the drain.
            run: Computes a step. If it raises, the exception becomes the outcome of every document
                of the step.
            lost: Returns, after a step, whether the engine can compute no other.
        """
        self._started = True
        engine = _Engine(run, lost)
        with self._changed:
            self._engines.append(engine)
        thread.submit(self._work, engine)

    def take_out(self, run: Run[D, R]) -> bool:
        """Give an engine no more documents, and those that it computes now to another engine.

        A document that two engines were computing when they were lost gets an error.

        Returns:
            Whether other engines are left; the last one is not taken out.
        """
        with self._changed:
            engine = next((one for one in self._engines if one.run is run), None)
            if engine is None:
                return True
            if len(self._engines) == 1:
                return False
            self._engines.remove(engine)
            self.taken_out += 1
            engine.taken_out = True
            self._put_back(engine.step)
            self._changed.notify_all()
        return True

    def lane(self, *, interactive: bool = False) -> Lane[D, R]:
        """A lane for one call."""
        return Lane(self, interactive=interactive)

    def waiting_tokens(self, *, interactive: bool) -> int:
        """Queued tokens of interactive or of bulk lanes."""
        room = self._rooms[interactive]
        return room.capacity - room.free

    def refuse(self) -> None:
        """Refuse new documents from now on; queued ones are still computed."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()
        for room in self._rooms.values():
            for _, waiter in room.line:
                if not waiter.done():
                    waiter.set_exception(DrainingError())
            room.line.clear()

    async def drain(self) -> None:
        """Refuse new documents, compute the queued ones, and release the threads."""
        self.refuse()
        if self._started:
            await self._finished.wait()

    async def put(self, lane: Lane[D, R], ticket: Ticket[D, R]) -> None:
        """Queue a document, as `Lane.put` says."""
        if self._draining:
            raise DrainingError
        room = self._rooms[lane.interactive]
        if not room.take(ticket.tokens):
            if lane.interactive:
                raise QueueFullError(room.capacity)
            waiter = asyncio.get_running_loop().create_future()
            room.line.append((ticket.tokens, waiter))
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                    self._give_back(lane.interactive, ticket.tokens)
                raise
        if lane.closed or self._draining:
            self._give_back(lane.interactive, ticket.tokens)
            if lane.closed:
                return
            # The engines may have computed everything else and ended.
            raise DrainingError
        with self._changed:
            if not lane.waiting:
                self._ready[lane.interactive].append(lane)
            lane.waiting.append(ticket)
            self._changed.notify()

    def close(self, lane: Lane[D, R]) -> None:
        """Drop the documents queued in a lane, as `Lane.close` says."""
        with self._changed:
            lane.closed = True
            dropped = sum(ticket.tokens for ticket in lane.waiting)
            if lane.waiting:
                self._ready[lane.interactive].remove(lane)
                lane.waiting.clear()
        self._give_back(lane.interactive, dropped)

    def _give_back(self, interactive: bool, tokens: int) -> None:
        self._rooms[interactive].free += tokens
        self._rooms[interactive].grant()

    def _work(self, engine: _Engine[D, R]) -> None:
        """Run on the engine's thread: take a step, compute it, deliver the outcomes."""
        while step := self._take(engine):
            outcomes: Sequence[R | Exception]
            try:
                outcomes = engine.run([ticket.document for _, ticket in step])
            except Exception as error:
                outcomes = [error] * len(step)
            if engine.lost():
                self.take_out(engine.run)
            with self._changed:
                if engine.taken_out:
                    return
                engine.step = []
            self._loop.call_soon_threadsafe(self._deliver, step, outcomes)

    def _take(self, engine: _Engine[D, R]) -> list[tuple[Lane[D, R], Ticket[D, R]]]:
        """Return the documents of an engine's next step; empty once there are no more."""
        with self._changed:
            self._changed.wait_for(
                lambda: any(self._ready.values()) or self._draining or engine.taken_out
            )
            if not engine.taken_out:
                engine.step = self._next_step()
                if not engine.step:
                    self._engines.remove(engine)
                    if not self._engines:
                        self._loop.call_soon_threadsafe(self._finished.set)
            return engine.step

    def _next_step(self) -> list[tuple[Lane[D, R], Ticket[D, R]]]:
        """Return the documents of the next step; empty if none is queued."""
        step = Step[D, R]()
        half = self._step_tokens // 2 if self._ready[False] else self._step_tokens
        self._making_way = self._makes_way()
        if self._making_way:
            self._fill(step, True, limit=half)
        else:
            # A document that did not fit a step leads the next one, so large documents do not
            # starve behind small ones.
            overdue, self._overdue = self._overdue, None
            if overdue is not None and overdue.waiting:
                lanes = self._ready[overdue.interactive]
                lanes.remove(overdue)
                lanes.appendleft(overdue)
                self._fill(step, overdue.interactive, limit=1)
            self._fill(step, True, limit=half)
            self._fill(step, False, limit=self._step_tokens)
        if step.taken:
            self._loop.call_soon_threadsafe(self._free_room, step.taken)
        return step.taken

    def _put_back(self, step: list[tuple[Lane[D, R], Ticket[D, R]]]) -> None:
        """Queue the documents of a step again, before all others."""
        hopeless = [(lane, ticket) for lane, ticket in step if ticket.again]
        error = EngineError("two devices were lost while they computed this")
        self._loop.call_soon_threadsafe(self._deliver, hopeless, [error] * len(hopeless))
        returned = [(lane, ticket) for lane, ticket in step if not (ticket.again or lane.closed)]
        for lane, ticket in reversed(returned):
            if not lane.waiting:
                self._ready[lane.interactive].appendleft(lane)
            lane.waiting.appendleft(replace(ticket, again=True))
        self._loop.call_soon_threadsafe(self._take_room, returned)

    def _makes_way(self) -> bool:
        """Whether interactive documents get a step of their own before a large overdue document.

        Only once: the overdue document leads the next step.
        """
        lane = self._overdue
        return (
            not self._making_way
            and bool(self._ready[True])
            and lane is not None
            and not lane.interactive
            and bool(lane.waiting)
            and lane.waiting[0].tokens >= self._step_tokens // 2
        )

    def _fill(self, step: Step[D, R], interactive: bool, *, limit: int) -> None:
        """Take documents that fit, one per lane in turn, up to `limit` tokens of the step."""
        lanes = self._ready[interactive]
        passed: list[Lane[D, R]] = []
        while lanes and step.tokens < limit:
            lane = lanes.popleft()
            head = lane.waiting[0]
            if not step.take(lane, limit):
                passed.append(lane)
            elif lane.waiting:
                lanes.append(lane)
            if lane.waiting and lane.waiting[0] is head and self._overdue is None:
                self._overdue = lane
        lanes.extendleft(reversed(passed))

    def _take_room(self, step: list[tuple[Lane[D, R], Ticket[D, R]]]) -> None:
        for lane, ticket in step:
            self._rooms[lane.interactive].free -= ticket.tokens

    def _free_room(self, step: list[tuple[Lane[D, R], Ticket[D, R]]]) -> None:
        for lane, ticket in step:
            self._rooms[lane.interactive].free += ticket.tokens
        for room in self._rooms.values():
            room.grant()

    @staticmethod
    def _deliver(
        step: list[tuple[Lane[D, R], Ticket[D, R]]], outcomes: Sequence[R | Exception]
    ) -> None:
        for (lane, ticket), outcome in zip(step, outcomes, strict=True):
            if not lane.closed:
                ticket.done(outcome)
