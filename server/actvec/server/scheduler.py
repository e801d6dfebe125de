"""The scheduler: documents of all calls wait here, and steps are filled from them.

It knows neither gRPC nor torch: a document is anything with a cost in tokens, and `run` is a
function from a step of documents to as many outcomes. One thread, which it is given, calls `run`;
everything else happens on one event loop.

Calls wait in lanes. A step takes one document of each lane in turn, so that calls share the machine
however many documents each has; interactive lanes go first, but never take more than half of a step
that others wait for. Where a large bulk document is due and would leave them no room, they have a
short step before it. Each class has its own bound on waiting tokens: beyond it, bulk lanes wait in
line for room and interactive ones are refused.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from actvec.server.errors import DrainingError, QueueFullError

D = TypeVar("D")
R = TypeVar("R")

# How far a lane is searched for a document that fits what is left of a step.
_LOOKAHEAD = 32


@dataclass(frozen=True, eq=False)
class _Ticket(Generic[D, R]):
    """A waiting document: its cost in tokens, and whom to tell what became of it."""

    document: D
    tokens: int
    done: Callable[[R | Exception], None]


class Lane(Generic[D, R]):
    """The waiting documents of one call. Made by `Scheduler.lane`; close it when the call ends."""

    def __init__(self, scheduler: "Scheduler[D, R]", *, interactive: bool) -> None:
        self.interactive = interactive
        self.waiting: deque[_Ticket[D, R]] = deque()
        self.closed = False
        self._scheduler = scheduler

    async def put(self, document: D, tokens: int, done: Callable[[R | Exception], None]) -> None:
        """Queue a document. `done` is called on the event loop with its result or exception.

        A bulk lane waits until there is room.

        Raises:
            QueueFullError: the lane is interactive and there is no room.
            DrainingError: the scheduler takes nothing new.
        """
        await self._scheduler._put(self, _Ticket(document, tokens, done))

    def close(self) -> None:
        """Drop what still waits in this lane; what is being computed is not told to anyone."""
        self._scheduler._close(self)


class _Room:
    """A bound on waiting tokens, with a first-come line of those who wait for room."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.free = capacity
        self.line: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, tokens: int) -> bool:
        """Take room if there is some and nobody waits for it. A full-size document fits alone."""
        if self.line or min(tokens, self.capacity) > self.free:
            return False
        self.free -= tokens
        return True

    def grant(self) -> None:
        """Give free room to those in line, in their order."""
        while self.line:
            tokens, waiter = self.line[0]
            if waiter.done():
                self.line.popleft()
            elif min(tokens, self.capacity) <= self.free:
                self.line.popleft()
                self.free -= tokens
                waiter.set_result(None)
            else:
                return


class _Step(Generic[D, R]):
    """A step that is being filled."""

    def __init__(self) -> None:
        self.tokens = 0
        self.taken: list[tuple[Lane[D, R], _Ticket[D, R]]] = []

    def take(self, lane: Lane[D, R], limit: int) -> bool:
        """Take the first of the lane's next documents that fits; any fits an empty step."""
        for index, ticket in enumerate(islice(lane.waiting, _LOOKAHEAD)):
            if not self.taken or self.tokens + ticket.tokens <= limit:
                del lane.waiting[index]
                self.taken.append((lane, ticket))
                self.tokens += ticket.tokens
                return True
        return False


class Scheduler(Generic[D, R]):
    """Fills steps from lanes and has them computed by one thread.

    Made on the event loop that calls come from.

    Args:
        run: Computes a step, on the thread that `start` is given. An exception of its own is the
            outcome of every document of the step.
        step_tokens: Tokens of a step; a document of more is a step by itself.
        queued_tokens: Tokens that wait at most, for bulk and for interactive lanes each.
    """

    def __init__(
        self,
        run: Callable[[Sequence[D]], Sequence[R | Exception]],
        *,
        step_tokens: int,
        queued_tokens: int,
    ) -> None:
        self._run = run
        self._step_tokens = step_tokens
        self._rooms = {True: _Room(queued_tokens), False: _Room(queued_tokens)}
        self._ready: dict[bool, deque[Lane[D, R]]] = {True: deque(), False: deque()}
        self._overdue: Lane[D, R] | None = None
        self._making_way = False
        self._changed = threading.Condition()
        self._draining = False
        self._loop = asyncio.get_running_loop()
        self._started = False
        self._finished = asyncio.Event()

    def start(self, thread: Executor) -> None:
        """Compute from now on. `thread` is of one thread, which is taken until the drain."""
        self._started = True
        thread.submit(self._work)

    def lane(self, *, interactive: bool = False) -> Lane[D, R]:
        """A lane for one call."""
        return Lane(self, interactive=interactive)

    def waiting_tokens(self, *, interactive: bool) -> int:
        """Tokens that wait, of either class of lanes."""
        room = self._rooms[interactive]
        return room.capacity - room.free

    def refuse(self) -> None:
        """Take nothing new from now on; what waits is still computed."""
        with self._changed:
            self._draining = True
            self._changed.notify()
        for room in self._rooms.values():
            for _, waiter in room.line:
                if not waiter.done():
                    waiter.set_exception(DrainingError())
            room.line.clear()

    async def drain(self) -> None:
        """Refuse what is new, compute what waits, and leave the thread."""
        self.refuse()
        if self._started:
            await self._finished.wait()

    async def _put(self, lane: Lane[D, R], ticket: _Ticket[D, R]) -> None:
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
        if lane.closed:
            self._give_back(lane.interactive, ticket.tokens)
            return
        with self._changed:
            if not lane.waiting:
                self._ready[lane.interactive].append(lane)
            lane.waiting.append(ticket)
            self._changed.notify()

    def _close(self, lane: Lane[D, R]) -> None:
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

    def _work(self) -> None:
        """The engine's thread: take a step, compute it, hand the outcomes over."""
        while step := self._take():
            tickets = [ticket for _, ticket in step]
            outcomes: Sequence[R | Exception]
            try:
                outcomes = self._run([ticket.document for ticket in tickets])
            except Exception as error:
                outcomes = [error] * len(tickets)
            self._loop.call_soon_threadsafe(self._deliver, step, outcomes)
        self._loop.call_soon_threadsafe(self._finished.set)

    def _take(self) -> list[tuple[Lane[D, R], _Ticket[D, R]]]:
        """The documents of the next step; empty when the scheduler has drained."""
        with self._changed:
            self._changed.wait_for(lambda: any(self._ready.values()) or self._draining)
            step = _Step[D, R]()
            half = self._step_tokens // 2 if self._ready[False] else self._step_tokens
            self._making_way = self._makes_way()
            if self._making_way:
                self._fill(step, True, limit=half)
            else:
                # A document that a step passed over, since it did not fit, leads the next one:
                # large documents do not starve behind small ones.
                overdue, self._overdue = self._overdue, None
                if overdue is not None and overdue.waiting:
                    self._fill(step, overdue.interactive, limit=1, first=overdue)
                self._fill(step, True, limit=half)
                self._fill(step, False, limit=self._step_tokens)
        if step.taken:
            self._loop.call_soon_threadsafe(self._free_room, step.taken)
        return step.taken

    def _makes_way(self) -> bool:
        """Whether interactive documents go alone, before an overdue one that leaves them no room.

        Once: the next step is led by it.
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

    def _fill(
        self, step: "_Step[D, R]", interactive: bool, *, limit: int, first: Lane[D, R] | None = None
    ) -> None:
        """Take documents that fit, one of each lane in turn, up to `limit` tokens of the step."""
        lanes = self._ready[interactive]
        if first is not None:
            lanes.remove(first)
            lanes.appendleft(first)
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

    def _free_room(self, step: list[tuple[Lane[D, R], _Ticket[D, R]]]) -> None:
        for lane, ticket in step:
            self._rooms[lane.interactive].free += ticket.tokens
        for room in self._rooms.values():
            room.grant()

    @staticmethod
    def _deliver(
        step: list[tuple[Lane[D, R], _Ticket[D, R]]], outcomes: Sequence[R | Exception]
    ) -> None:
        for (lane, ticket), outcome in zip(step, outcomes, strict=True):
            if not lane.closed:
                ticket.done(outcome)
