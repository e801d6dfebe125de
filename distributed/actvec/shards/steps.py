"""Computes one caller's documents in packed steps; the next step fills while one runs."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from actvec.server.engine.memory import step_budget
from actvec.server.engine.packed import Engine
from actvec.server.engine.pools import Pools
from actvec.server.engine.runner import StepRunner
from actvec.server.engine.step import StepDocument
from actvec.server.errors import EngineLostError

K = TypeVar("K")

Outcome = Pools | Exception
_Step = list[tuple[K, StepDocument]]

# How far to search the waiting documents for one that fits the rest of a step.
_LOOKAHEAD = 32


class Steps:
    """Runs an engine on its own thread, which starts with the first step.

    Args:
        engine: The engine.
        step_tokens: Tokens of a step; None for as many as suit the device and fit its memory.
        step_timeout: Seconds after which an engine still busy with one step counts as lost.
    """

    def __init__(
        self, engine: Engine, *, step_tokens: int | None = None, step_timeout: float = 600.0
    ) -> None:
        self._engine = engine
        self._runner = StepRunner(engine)
        self._asked = step_tokens
        self._step_tokens = 0
        self._step_timeout = step_timeout
        self._thread: ThreadPoolExecutor | None = None

    def __call__(
        self, documents: Iterable[tuple[K, StepDocument | None]]
    ) -> Iterator[tuple[K, Outcome | None]]:
        """Yield the outcome of each document, with its key, as soon as it is known.

        Args:
            documents: Keys and documents. A None instead of a document comes straight back.

        Yields:
            The key and the document's pools or error; None for None. Documents share steps, so
            they may come back in another order.

        Raises:
            StartupError: the requested step does not fit memory.
            EngineLostError: the engine hangs, or its device failed. The process must end.
        """
        thread = self._started()
        source = iter(documents)
        waiting: deque[tuple[K, StepDocument]] = deque()
        running: tuple[_Step[K], Future[list[Outcome]]] | None = None
        while True:
            # Documents are drawn, and so tokenized, while the previous step runs: more than one
            # step takes, so that small ones can fill its rest.
            room = 2 * self._step_tokens - sum(document.tokens for _, document in waiting)
            while room > 0 and (drawn := next(source, None)) is not None:
                key, document = drawn
                if document is None:
                    yield key, None
                else:
                    waiting.append((key, document))
                    room -= document.tokens
            before, running = running, None
            outcomes = [] if before is None else self._wait(before[1])
            if waiting:
                step = self._fill(waiting)
                running = step, thread.submit(self._run, step)
            if before is not None:
                yield from zip((key for key, _ in before[0]), outcomes, strict=True)
            if running is None:
                return

    def _started(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="actvec-engine")
            budget = self._thread.submit(
                step_budget, self._engine, self._asked, self._engine.card.context
            )
            try:
                self._step_tokens = budget.result()
            except BaseException:
                self._thread.shutdown(wait=False)
                self._thread = None
                raise
        return self._thread

    def _fill(self, waiting: deque[tuple[K, StepDocument]]) -> _Step[K]:
        """Take the documents of the next step; the longest-waiting one is always among them."""
        near = [waiting.popleft() for _ in range(min(_LOOKAHEAD, len(waiting)))]
        step: _Step[K] = []
        left: _Step[K] = []
        room = max(self._step_tokens, near[0][1].tokens)
        for one in near:
            fits = one[1].tokens <= room
            (step if fits else left).append(one)
            room -= one[1].tokens if fits else 0
        waiting.extendleft(reversed(left))
        return step

    def _run(self, step: _Step[K]) -> list[Outcome]:
        return list(self._runner([document for _, document in step]))

    def _wait(self, running: "Future[list[Outcome]]") -> list[Outcome]:
        try:
            outcomes = running.result(self._step_timeout)
        except TimeoutError:
            raise EngineLostError(
                f"the engine hangs: a step has been running for {self._step_timeout:g} seconds"
            ) from None
        if self._runner.lost is not None:
            raise EngineLostError(f"the device is lost: {self._runner.lost}")
        return outcomes
