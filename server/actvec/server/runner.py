"""Between scheduler and engine: runs steps, and tells how they went."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from actvec.server.engine import Engine
from actvec.server.pooler import Pools
from actvec.server.step import StepDocument


@dataclass(frozen=True)
class StepReport:
    """What a step was.

    Attributes:
        tokens: Tokens of its documents.
        seconds: How long it took to compute.
        waits: For each document, the seconds that it waited for the step.
    """

    tokens: int
    seconds: float
    waits: Sequence[float]


class StepRunner:
    """Runs steps on an engine. Called by the scheduler's thread alone.

    Attributes:
        card: The engine's model.

    Args:
        engine: What computes.
        on_step: Is told of each step, on the same thread.
    """

    def __init__(
        self, engine: Engine, on_step: Callable[[StepReport], None] = lambda _: None
    ) -> None:
        self.card = engine.card
        self._engine = engine
        self._on_step = on_step

    def __call__(self, documents: Sequence[StepDocument]) -> Sequence[Pools | Exception]:
        """The outcome of each document."""
        began = time.monotonic()
        try:
            return self._engine.run(documents)
        finally:
            self._on_step(
                StepReport(
                    tokens=sum(document.tokens for document in documents),
                    seconds=time.monotonic() - began,
                    waits=[began - document.made for document in documents],
                )
            )
