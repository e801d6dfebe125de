"""A stream from documents to vectors that outlives its connections.

If a connection breaks, the stream opens a new one and resends the unanswered documents, there or to
another server. A vector depends only on its document and the stamp, so an equal stamp suffices.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from actvec.client.records.model import Limits, ModelInfo
from actvec.client.records.settings import VectorSettings
from actvec.client.records.vectors import Result
from actvec.client.streams.in_flight import Documents, InFlight, costs_of
from actvec.client.streams.outbox import Outbox
from actvec.client.streams.prefetch import open_feed
from actvec.client.streams.vector_call import VectorCall, run_lanes
from actvec.client.transport.connection import Connection

# Results handed over at a time, and bytes of their vectors.
_BATCH = 64
_BATCH_BYTES = 8 << 20

# Documents of one stream inside a server at a time, if the server does not report it.
_SERVER_DOCUMENTS = 512


def window_for(limits: Limits) -> int:
    """Return how many documents in flight keep a server busy.

    Twice what the server holds per stream: as much as it holds, so that it never waits for work,
    and as much again on the way there and back. More would wait on this side and cost memory for
    nothing; less would leave a fast server idle behind a slow connection.
    """
    return 2 * (limits.max_stream_documents or _SERVER_DOCUMENTS)


class VectorStream:
    """Documents in, results out, each document answered exactly once.

    Args:
        settings: How documents become vectors.
        window: Documents in flight, of up to 16,384 characters and with a vector of up to 256 KiB
            each: drawn, with their result not yet handed over. None to follow the server.
        ordered: Whether results come in the order of the documents.
        retry_for: Seconds without progress after which a broken stream fails.

    Raises:
        ValueError: `window` is less than 1.
    """

    def __init__(
        self, settings: VectorSettings, window: int | None, *, ordered: bool, retry_for: float
    ) -> None:
        if window is not None and window < 1:
            raise ValueError(f"window is at least 1 document, not {window}")
        self._settings = settings
        self._window = window
        self._retry_for = retry_for
        self._outbox = Outbox(ordered=ordered)
        self._work: InFlight | None = None

    async def run(
        self,
        documents: Documents,
        ask_info: Callable[[], Coroutine[Any, Any, ModelInfo]],
        connect: Callable[[], Coroutine[Any, Any, Sequence[Connection]]],
    ) -> None:
        """Talk to the servers until everything is answered, over as many streams as it takes.

        Raises:
            ActvecError: the stream cannot continue.
            Exception: whatever `documents` raised, after the results of the documents before it.
        """
        try:
            info = await ask_info()
            connections = await connect()
            window = self._window or len(connections) * window_for(info.limits)
            room = max(1, window // len(connections))
            cost = costs_of(self._settings, info)
            feed = open_feed(documents, window, cost)
            self._work = work = InFlight(
                self._settings, info, feed, self._outbox, cost=cost, lanes=len(connections)
            )
            try:
                await run_lanes(
                    [VectorCall(one, work, room, self._retry_for) for one in connections]
                )
            finally:
                feed.close()
            if feed.error is not None:
                raise feed.error
        finally:
            self._outbox.end()

    async def take(self) -> list[Result]:
        """Return results that are ready, at least one; empty once `run` has ended."""
        batch = await self._outbox.take(_BATCH, _BATCH_BYTES)
        if batch and self._work is not None:
            self._work.taken(batch)
        return batch
