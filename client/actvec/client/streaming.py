"""A stream of documents to vectors that outlives its connections.

Where a connection breaks, a new one is opened and the unanswered documents are sent again, there or
to another server; vectors depend on nothing but their text and the stamp, so it is enough that the
stamp is the same.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from actvec.client.connection import Connection
from actvec.client.feed import open_feed
from actvec.client.lane import Lane, run_lanes
from actvec.client.model import Limits
from actvec.client.outbox import Outbox
from actvec.client.vectors import Result, Settings
from actvec.client.work import Documents, Work, cost

# Results handed over at a time.
_BATCH = 64

# Documents of one stream that a server has inside at a time, where it does not say.
_SERVER_DOCUMENTS = 512


@dataclass(frozen=True)
class StreamOptions:
    """How a stream behaves, whatever it computes.

    Attributes:
        window: Documents in flight, of 16,384 characters or less each: drawn, and their result not
            yet handed over. None to follow the server.
        ordered: Whether results come in the order of the documents.
        retry_for: Seconds without progress after which a broken stream is given up.

    Raises:
        ValueError: `window` is less than 1 or `retry_for` negative.
    """

    window: int | None
    ordered: bool
    retry_for: float

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"window is at least 1 document, not {self.window}")
        if self.retry_for < 0:
            raise ValueError(f"retry_for is 0 or more seconds, not {self.retry_for}")


def window_for(limits: Limits) -> int:
    """Documents in flight that keep a server busy.

    Twice what the server has inside of one stream: as much as it holds, so that it is never short
    of work, and as much again for what is on its way there and back. More would wait on this side
    and cost memory for nothing, less would leave a fast server idle behind a slow connection.
    """
    return 2 * (limits.max_stream_documents or _SERVER_DOCUMENTS)


class VectorStream:
    """Documents in, results out, each document answered exactly once."""

    def __init__(self, settings: Settings, options: StreamOptions) -> None:
        self._settings = settings
        self._options = options
        self._outbox = Outbox(ordered=options.ordered)
        self._work: Work | None = None

    async def run(
        self,
        documents: Documents,
        ask_limits: Callable[[], Coroutine[Any, Any, Limits]],
        connect: Callable[[], Coroutine[Any, Any, Sequence[Connection]]],
    ) -> None:
        """Talk to the servers until everything is answered, over as many streams as it takes.

        Raises:
            ActvecError: the stream cannot go on.
            Exception: whatever `documents` raised, after the results of what it gave.
        """
        try:
            limits = await ask_limits()
            connections = await connect()
            window = self._options.window or len(connections) * window_for(limits)
            room = max(1, window // len(connections))
            feed = open_feed(documents, window, cost)
            self._work = work = Work(self._settings, limits, feed, self._outbox, len(connections))
            try:
                await run_lanes(
                    [Lane(one, work, room, self._options.retry_for) for one in connections]
                )
            finally:
                feed.close()
            if feed.error is not None:
                raise feed.error
        finally:
            self._outbox.end()

    async def take(self) -> list[Result]:
        """Results that are ready, at least one; empty when `run` has ended."""
        batch = await self._outbox.take(_BATCH)
        if batch and self._work is not None:
            self._work.taken(batch)
        return batch
