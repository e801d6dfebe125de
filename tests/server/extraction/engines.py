"""An engine for tests of the scheduler: it negates numbers, and a test can hold it."""

import asyncio
import threading


class Engine:
    """Negates documents. Records its steps, and computes nothing while held."""

    def __init__(self):
        self.steps = []
        self.entered = threading.Event()
        self.allowed = threading.Event()
        self.allowed.set()

    def __call__(self, documents):
        self.entered.set()
        assert self.allowed.wait(60)
        self.steps.append(list(documents))
        return [-document for document in documents]

    async def hold(self, scheduler):
        """Return once the engine is busy with a document that `release` ends."""
        self.allowed.clear()
        self.entered.clear()
        await scheduler.lane(interactive=True).put(0, 1, lambda _: None)
        await asyncio.to_thread(self.entered.wait, 60)

    def release(self):
        self.allowed.set()
