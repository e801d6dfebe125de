"""Where documents queue for a step: lanes, the room that they share, and the step being filled."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

D = TypeVar("D")
R = TypeVar("R")

# How far to search a lane for a document that fits the rest of a step.
_LOOKAHEAD = 32


class Queue(Protocol[D, R]):
    """What a lane belongs to."""

    async def put(self, lane: "Lane[D, R]", ticket: "Ticket[D, R]") -> None:
        """Queue a document of a lane."""

    def close(self, lane: "Lane[D, R]") -> None:
        """Drop the documents queued in a lane."""


@dataclass(frozen=True, eq=False)
class Ticket(Generic[D, R]):
    """A queued document.

    Attributes:
        tokens: Its cost.
        done: The callback for its outcome.
        again: Whether an engine was lost that computed it.
    """

    document: D
    tokens: int
    done: Callable[[R | Exception], None]
    again: bool = False


class Lane(Generic[D, R]):
    """The queued documents of one call. Made by `Scheduler.lane`; close it when the call ends."""

    def __init__(self, queue: "Queue[D, R]", *, interactive: bool) -> None:
        self.interactive = interactive
        self.waiting: deque[Ticket[D, R]] = deque()
        self.closed = False
        self._queue = queue

    async def put(self, document: D, tokens: int, done: Callable[[R | Exception], None]) -> None:
        """Queue a document; the event loop calls `done` with its result or exception.

        A bulk lane waits until there is room.

        Raises:
            QueueFullError: the lane is interactive and there is no room.
            DrainingError: the scheduler is draining.
        """
        await self._queue.put(self, Ticket(document, tokens, done))

    def close(self) -> None:
        """Drop the documents queued in this lane, and the outcomes of those being computed."""
        self._queue.close(self)


class Room:
    """A bound on queued tokens, with a first-come line of waiters."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.free = capacity
        self.line: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, tokens: int) -> bool:
        """Take room if there is some and nobody waits. An oversized document fits alone."""
        if self.line or min(tokens, self.capacity) > self.free:
            return False
        self.free -= tokens
        return True

    def grant(self) -> None:
        """Grant free room to the waiters, in order."""
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


class Step(Generic[D, R]):
    """A step that is being filled."""

    def __init__(self) -> None:
        self.tokens = 0
        self.taken: list[tuple[Lane[D, R], Ticket[D, R]]] = []

    def take(self, lane: Lane[D, R], limit: int) -> bool:
        """Take the first of the lane's next documents that fits; any fits an empty step."""
        for index, ticket in enumerate(islice(lane.waiting, _LOOKAHEAD)):
            if not self.taken or self.tokens + ticket.tokens <= limit:
                del lane.waiting[index]
                self.taken.append((lane, ticket))
                self.tokens += ticket.tokens
                return True
        return False
