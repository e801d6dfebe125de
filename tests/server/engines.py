"""Engines in the place of the demo model's."""

import asyncio
import threading
from collections.abc import Callable, Sequence

from actvec.server.engine.packed import Engine
from actvec.server.engine.pools import Pools
from actvec.server.engine.step import StepDocument
from actvec.server.errors import NotFiniteError

Run = Callable[[Sequence[StepDocument]], list[Pools | NotFiniteError]]


class StandIn:
    """An engine's card and groups, and another way to compute a step."""

    def __init__(self, engine: Engine, run: Run | None = None) -> None:
        self.name, self.card, self.groups = engine.name, engine.card, engine.groups
        self._engine = engine
        if run is not None:
            self.run = run


class FailingEngine(StandIn):
    """An engine that raises an error at each step."""

    def __init__(self, engine: Engine, error: Exception) -> None:
        super().__init__(engine)
        self._error = error

    def run(self, _: Sequence[StepDocument]) -> list[Pools | NotFiniteError]:
        raise self._error


class HeldEngine(StandIn):
    """An engine that computes nothing until `release` is called.

    Attributes:
        steps: The number of documents of each step that it was given.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.steps: list[int] = []
        self._entered, self._released = threading.Event(), threading.Event()

    def run(self, documents: Sequence[StepDocument]) -> list[Pools | NotFiniteError]:
        self.steps.append(len(documents))
        self._entered.set()
        assert self._released.wait(60)
        return self._engine.run(documents)

    async def entered(self) -> None:
        """Return once it was given a step."""
        assert await asyncio.to_thread(self._entered.wait, 60)

    def release(self) -> None:
        self._released.set()
