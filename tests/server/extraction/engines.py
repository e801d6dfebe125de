"""An engine for tests of the scheduler: it negates numbers, and a test can hold it."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor


class Engine:
    """Negates documents. Records its steps, and computes nothing while held."""

    def __init__(self):
        self.thread = ThreadPoolExecutor(1)
        self.steps = []
        self.entered = threading.Event()
        self.allowed = threading.Event()
        self.allowed.set()

    def __call__(self, documents):
        self.entered.set()
        assert self.allowed.wait(60)
        self.steps.append(list(documents))
        return [-document for document in documents]

    async def hold(self, scheduler, told=lambda _: None):
        """Return the lane of a document once the engine is busy with it, until `release`."""
        self.allowed.clear()
        self.entered.clear()
        lane = scheduler.lane(interactive=True)
        await lane.put(0, 1, told)
        assert await asyncio.to_thread(self.entered.wait, 60)
        return lane

    def release(self):
        self.allowed.set()
