"""Between scheduler and engine: runs steps, halves those that memory cannot hold, and tells."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from actvec.server.engine import Engine
from actvec.server.errors import DoesNotFitError, EngineError
from actvec.server.pooler import Pools
from actvec.server.step import StepDocument

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepReport:
    """What a step was.

    Attributes:
        tokens: Tokens of its documents.
        seconds: How long it took to compute.
        waits: For each document, the seconds that it waited for the step.
        splits: How often it, or a part of it, was halved for want of memory.
    """

    tokens: int
    seconds: float
    waits: Sequence[float]
    splits: int


class StepRunner:
    """Runs steps on an engine. Called by the scheduler's thread alone.

    Args:
        engine: What computes.
        on_step: Is told of each step, on the same thread.

    Attributes:
        card: The engine's model.
        lost: The error after which the engine's device computes nothing any more; None while it
            is well.
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
        """The outcome of each document: its pools, or `EngineError` if the engine failed on it."""
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

    def running_for(self) -> float:
        """Seconds that the engine has been at what it does now; 0 while it has nothing to do."""
        since = self._running_since
        return 0.0 if since is None else time.monotonic() - since

    def _run_groups(self, documents: Sequence[StepDocument]) -> list[Pools | Exception]:
        """Run the documents that may share a forward pass, group by group."""
        outcomes: dict[int, Pools | Exception] = {}
        for group in self._engine.groups([document.tokens for document in documents]):
            outcomes |= zip(group, self._run([documents[i] for i in group]), strict=True)
        return [outcomes[index] for index in range(len(documents))]

    def _run(self, documents: Sequence[StepDocument]) -> list[Pools | Exception]:
        """Run documents, and in halves those for which there was no memory.

        The engine sums a document's states last of all and whole or not at all, so that none is
        summed twice.
        """
        outcomes = self._attempt(documents)
        unfit = [index for index, outcome in enumerate(outcomes) if _out_of_memory(outcome)]
        if not unfit:
            return outcomes
        if len(documents) == 1:
            return [DoesNotFitError(documents[0].tokens)]
        self._splits += 1
        log.warning(
            "no memory for a step of %d tokens; it is halved. A smaller --step-tokens is faster",
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
        # What torch says of a CPU's memory has no class of its own.
        isinstance(outcome, RuntimeError) and "can't allocate memory" in str(outcome)
    )
