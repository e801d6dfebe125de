"""Runs the scheduler's steps on an engine, halves those that exceed memory, and reports them."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from actvec.server.engine.packed import Engine
from actvec.server.engine.pools import Pools
from actvec.server.engine.step import StepDocument
from actvec.server.errors import DoesNotFitError, EngineError

log = logging.getLogger(__name__)

# Limit on the bytes that a step holds until its end: vectors, and states to sum.
_HELD_BYTES = 1 << 30


@dataclass(frozen=True)
class StepReport:
    """A report of a step.

    Attributes:
        tokens: Tokens of its documents.
        seconds: How long it took to compute.
        waits: Seconds that each document waited for the step.
        splits: How often it, or a part of it, was halved for lack of memory.
    """

    tokens: int
    seconds: float
    waits: Sequence[float]
    splits: int


class StepRunner:
    """Runs steps on an engine. Only the scheduler's thread calls it.

    Args:
        engine: The engine.
        on_step: Called with a report of each step, on the same thread.

    Attributes:
        card: The engine's model.
        lost: The error that made the engine's device unusable; None while it works.
    """

    def __init__(
        self, engine: Engine, on_step: Callable[[StepReport], None] = lambda _: None
    ) -> None:
        self.card = engine.card
        self.lost: Exception | None = None
        self._engine = engine
        self._on_step = on_step
        self._running_since: float | None = None
        self._splits = 0

    def __call__(self, documents: Sequence[StepDocument]) -> Sequence[Pools | Exception]:
        """Return the outcome of each document: its pools, or `EngineError` if the engine failed."""
        began = time.monotonic()
        self._splits = 0
        try:
            return self._run_groups(documents)
        finally:
            self._on_step(
                StepReport(
                    tokens=sum(document.tokens for document in documents),
                    seconds=time.monotonic() - began,
                    waits=[began - document.made for document in documents],
                    splits=self._splits,
                )
            )

    def is_lost(self) -> bool:
        """Whether the engine's device computes nothing any more."""
        return self.lost is not None

    def running_for(self) -> float:
        """Seconds since the engine's current run began; 0 while it is idle."""
        since = self._running_since
        return 0.0 if since is None else time.monotonic() - since

    def _run_groups(self, documents: Sequence[StepDocument]) -> list[Pools | Exception]:
        """Run the documents group by group; those of a group may share a forward pass."""
        outcomes: dict[int, Pools | Exception] = {}
        for group in self._engine.groups([document.tokens for document in documents]):
            for part in self._portions(documents, group):
                outcomes |= zip(part, self._run([documents[i] for i in part]), strict=True)
        return [outcomes[index] for index in range(len(documents))]

    def _portions(
        self, documents: Sequence[StepDocument], group: Sequence[int]
    ) -> Iterator[list[int]]:
        """Split a group so that the vectors and summed states of each part fit their limit.

        Everything else that a step holds is proportional to its tokens, which have their own limit.
        """
        part: list[int] = []
        held = 0
        for index in group:
            size = documents[index].held_bytes(self.card)
            if part and held + size > _HELD_BYTES:
                yield part
                part, held = [], 0
            part.append(index)
            held += size
        yield part

    def _run(self, documents: Sequence[StepDocument]) -> list[Pools | Exception]:
        """Run documents; rerun in halves those for which there was no memory.

        The engine sums a document's states last, and whole or not at all, so none is summed twice.
        """
        outcomes = self._attempt(documents)
        unfit = [index for index, outcome in enumerate(outcomes) if _out_of_memory(outcome)]
        if not unfit:
            return outcomes
        if len(documents) == 1:
            return [DoesNotFitError(documents[0].tokens)]
        self._splits += 1
        log.warning(
            "no memory for a step of %d tokens; it is halved. Smaller steps are faster",
            sum(document.tokens for document in documents),
        )
        middle = (len(unfit) + 1) // 2
        for half in filter(None, (unfit[:middle], unfit[middle:])):
            for index, outcome in zip(half, self._run([documents[i] for i in half]), strict=True):
                outcomes[index] = outcome
        return outcomes

    def _attempt(self, documents: Sequence[StepDocument]) -> list[Pools | Exception]:
        self._running_since = time.monotonic()
        try:
            return self._engine.run(documents)
        except Exception as error:
            if _out_of_memory(error):
                # Without its traceback, which keeps the tensors of the step in memory.
                return [error.with_traceback(None)] * len(documents)
            if isinstance(error, torch.AcceleratorError):
                self.lost = error
            log.exception("a step of %d documents failed", len(documents))
            # Not raised: other documents of the step may have been summed already.
            return [EngineError(type(error).__name__)] * len(documents)
        finally:
            self._running_since = None


def _out_of_memory(outcome: object) -> bool:
    return isinstance(outcome, torch.OutOfMemoryError | MemoryError) or (
        # torch has no class for a CPU out of memory.
        isinstance(outcome, RuntimeError) and "can't allocate memory" in str(outcome)
    )
