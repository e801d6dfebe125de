"""Whose texts are tokenized next: callers take turns, and no text waits for a much larger one.

A text of megabytes takes seconds, and nothing interrupts it. Texts of about a size share a thread,
so that what waits for a large text is large itself. On each thread callers take turns, a slice of
some documents at a time, and the calls of a caller likewise: a call has one slice in the line.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from actvec.server.calls.budget import purse
from actvec.v1.vectors_pb2 import Document

R = TypeVar("R")

# Characters of the texts that share a thread, at most, but for the last.
_SIZES = (1 << 15, 1 << 18)

# A slice: so many documents, and characters of more than one.
_SLICE_DOCUMENTS = 64
_SLICE_CHARACTERS = _SIZES[0]

# Callers whose last turn is known.
_REMEMBERED = 1000


def slices(documents: Sequence[Document]) -> Iterator[tuple[list[Document], list[str]]]:
    """Documents of a message and their texts, as many as are tokenized at a time."""
    some: list[Document] = []
    texts: list[str] = []
    characters = 0
    for document in documents:
        text = document.text
        full = len(some) == _SLICE_DOCUMENTS or characters + len(text) > _SLICE_CHARACTERS
        if some and full:
            yield some, texts
            some, texts, characters = [], [], 0
        some.append(document)
        texts.append(text)
        characters += len(text)
    if some:
        yield some, texts


class Tokenizing:
    """The threads that tokenize. Unary calls have one of their own, but for large texts."""

    def __init__(self) -> None:
        self._unary: Turns = Turns("actvec-tokenizer-unary")
        self._bulk = [Turns(f"actvec-tokenizer-{n}") for n in range(len(_SIZES) + 1)]

    async def run(
        self, function: Callable[[], R], characters: int, *, interactive: bool = False
    ) -> R:
        """What a function that tokenizes returns.

        Args:
            function: Called on a thread, unless the call is gone by then.
            characters: How large its texts are.
            interactive: Whether it is for a unary call.
        """
        size = sum(characters > most for most in _SIZES)
        turns = self._unary if interactive and not size else self._bulk[size]
        return await turns.run(function, purse().caller)

    def close(self) -> None:
        """End the threads, without waiting for what they do: nobody wants it any more."""
        for turns in (self._unary, *self._bulk):
            turns.close()


@dataclass(eq=False)
class _Job(Generic[R]):
    function: Callable[[], R]
    outcome: "asyncio.Future[R]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Turns:
    """A thread that callers use in turns. Used on one event loop."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: dict[str, deque[_Job[object]]] = {}
        self._last_turn: dict[str, int] = {}
        self._turns = 0
        self._busy = False

    async def run(self, function: Callable[[], R], caller: str) -> R:
        """What the function returns or raises, called on the thread in the caller's turn."""
        job = _Job(function)
        self._waiting.setdefault(caller, deque()).append(job)  # type: ignore[arg-type]
        self._next()
        return await job.outcome

    def close(self) -> None:
        """End the thread; nothing is waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> None:
        """Begin the next job where the thread is free."""
        while self._waiting and not self._busy:
            # Whose last turn is the longest ago: a caller of one call, which comes back when it has
            # its tokens, would else have every third turn beside one of many calls.
            caller = min(self._waiting, key=lambda one: self._last_turn.get(one, 0))
            job = self._waiting[caller].popleft()
            if not self._waiting[caller]:
                del self._waiting[caller]
            if not job.outcome.done():
                self._turn(caller)
                self._busy = True
                running = asyncio.get_running_loop().run_in_executor(self._thread, job.function)
                running.add_done_callback(partial(self._finish, job))

    def _turn(self, caller: str) -> None:
        """Note that it is a caller's turn; those of long ago are forgotten."""
        self._turns += 1
        self._last_turn.pop(caller, None)
        self._last_turn[caller] = self._turns
        if len(self._last_turn) > _REMEMBERED:
            del self._last_turn[next(iter(self._last_turn))]

    def _finish(self, job: "_Job[object]", done: "asyncio.Future[object]") -> None:
        self._busy = False
        if done.cancelled():
            job.outcome.cancel()
        elif not job.outcome.done():
            error = done.exception()
            if error is None:
                job.outcome.set_result(done.result())
            else:
                job.outcome.set_exception(error)
        self._next()
