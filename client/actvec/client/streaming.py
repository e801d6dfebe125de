"""A stream of documents to vectors that outlives its connections.

Every document gets a number, the key by which its answer is matched, and is kept until it is
answered. Where the stream breaks, a new one is opened and the unanswered documents are sent again;
vectors depend on nothing but their text and the stamp, so it is enough that the stamp is the same.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any

import grpc.aio

from actvec.client import wire
from actvec.client.connection import Connection, StreamCall
from actvec.client.conversation import BrokenError, Reconnection, converse
from actvec.client.errors import (
    ActvecError,
    ProtocolError,
    StampChanged,
    is_break,
    is_busy,
)
from actvec.client.feed import Feed, open_feed
from actvec.client.model import UNLIMITED, Limits
from actvec.client.outbox import Outbox
from actvec.client.vectors import Document, Failure, Result, Settings, Stamp
from actvec.v1 import vectors_pb2

Streamable = Document | Failure | str
Documents = Iterable[Streamable] | AsyncIterable[Streamable]

# Documents and bytes of one message: enough to make its cost vanish, little enough that the first
# results of a stream come early.
_MESSAGE_DOCUMENTS = 64
_MESSAGE_BYTES = 1 << 20

# Results handed over at a time.
_BATCH = 64

# Documents of one stream that a server has inside at a time, where it does not say.
_SERVER_DOCUMENTS = 512

# Characters of text that count as one document of the window; a longer text counts as several.
_CHARACTERS = 1 << 14


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


def cost(item: object) -> int:
    """What a document takes of the window: 1, and 1 more for each 16,384 characters of its text.

    So the window shrinks, in documents, as they grow, and memory is bounded for any length.
    """
    text = item.text if isinstance(item, Document) else item
    return 1 + len(text) // _CHARACTERS if isinstance(text, str) else 1


class VectorStream:
    """Documents in, results out, each document answered exactly once."""

    def __init__(self, connection: Connection, settings: Settings, options: StreamOptions) -> None:
        self._connection = connection
        self._settings = settings
        self._options = options
        self._reconnection = Reconnection(connection.target, options.retry_for)
        self._outbox = Outbox(ordered=options.ordered)
        self._feed: Feed[Streamable] | None = None
        self._limits = UNLIMITED
        self._stamp: Stamp | None = None
        self._drawn = 0
        self._exhausted = False
        self._costs: dict[int, int] = {}
        self._outstanding: dict[int, wire.OutgoingDocument] = {}
        self._unsent: deque[wire.OutgoingDocument] = deque()

    async def run(
        self, documents: Documents, ask_limits: Callable[[], Coroutine[Any, Any, Limits]]
    ) -> None:
        """Talk to the server until everything is answered, over as many streams as it takes.

        Raises:
            ActvecError: the stream cannot go on.
            Exception: whatever `documents` raised, after the results of what it gave.
        """
        try:
            self._limits = await ask_limits()
            window = self._options.window or window_for(self._limits)
            self._feed = feed = open_feed(documents, window, cost)
            try:
                await self._answer_all(feed)
            finally:
                feed.close()
            if feed.error is not None:
                raise feed.error
        finally:
            self._outbox.end()

    async def take(self) -> list[Result]:
        """Results that are ready, at least one; empty when `run` has ended."""
        batch = await self._outbox.take(_BATCH)
        if batch and self._feed is not None:
            self._feed.release(sum(self._costs.pop(result.index) for result in batch))
        return batch

    async def _answer_all(self, feed: Feed[Streamable]) -> None:
        while True:
            try:
                return await self._converse(feed)
            except BrokenError as broken:
                # Without a document to send there is nothing to connect for.
                while not self._outstanding and not self._exhausted:
                    self._reconnection.progress()
                    await self._draw(feed)
                if not self._outstanding:
                    return None
                unanswered = len(self._outstanding)
                await self._reconnection.wait(broken, f"{unanswered} documents are unanswered")

    async def _converse(self, feed: Feed[Streamable]) -> None:
        """One stream, from its opening to its end.

        Raises:
            BrokenError: it may be tried again.
            ActvecError: it may not.
        """
        self._unsent = deque(self._outstanding.values())
        call = self._connection.open_vector_stream()
        await converse(call, self._send(call, feed), self._receive(call))

    async def _send(self, call: StreamCall, feed: Feed[Streamable]) -> None:
        settings = wire.encode_settings(self._settings)
        # A call that is over says why to whoever reads it.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(vectors_pb2.StreamVectorsRequest(settings=settings))
            while not (self._exhausted and not self._unsent):
                if not self._unsent:
                    await self._draw(feed)
                    continue
                await call.write(vectors_pb2.StreamVectorsRequest(documents=self._next_message()))
            await call.done_writing()

    def _next_message(self) -> list[vectors_pb2.Document]:
        message: list[vectors_pb2.Document] = []
        limit = min(_MESSAGE_BYTES, (self._limits.max_message_bytes or _MESSAGE_BYTES) // 2)
        size = 0
        while self._unsent and len(message) < _MESSAGE_DOCUMENTS:
            size += self._unsent[0].size
            if message and size > limit:
                break
            message.append(self._unsent.popleft().message)
        return message

    async def _draw(self, feed: Feed[Streamable]) -> None:
        """Take documents from the feed; those that cannot be sent are answered here."""
        items = await feed.take(_MESSAGE_DOCUMENTS)
        self._exhausted = not items
        for item in items:
            self._admit(item)

    def _admit(self, item: Streamable) -> None:
        index = self._drawn
        self._drawn += 1
        self._costs[index] = cost(item)
        if isinstance(item, Failure):
            self._outbox.put(replace(item, index=index))
            return
        document = Document(str(index), item) if isinstance(item, str) else item
        if not isinstance(document, Document):
            raise TypeError(f"a stream takes Document or str, not {type(document).__name__}")
        try:
            outgoing = wire.encode_document(document, index, self._limits)
        except ActvecError as error:
            self._outbox.put(Failure.of(error, document.id, index))
            return
        self._outstanding[index] = outgoing
        self._unsent.append(outgoing)

    async def _receive(self, call: StreamCall) -> None:
        try:
            while isinstance(response := await call.read(), vectors_pb2.StreamVectorsResponse):
                self._check_stamp(response)
                for result in response.results:
                    self._accept(result)
        except grpc.aio.AioRpcError as error:
            if is_break(error) or is_busy(error):
                raise BrokenError(str(self._connection.error(error))) from error
            raise self._connection.error(error) from error
        if self._outstanding or not self._exhausted:
            raise BrokenError("the server ended the stream early")

    def _check_stamp(self, response: vectors_pb2.StreamVectorsResponse) -> None:
        if not response.HasField("stamp"):
            return
        stamp = wire.decode_stamp(response.stamp, self._settings)
        if self._stamp is None:
            self._stamp = stamp
        elif stamp != self._stamp:
            raise StampChanged(
                "after a reconnection the server makes other vectors than before, so the rest would"
                f" not fit what is there; start over. Before: {self._stamp}; now: {stamp}"
            )

    def _accept(self, result: vectors_pb2.DocumentResult) -> None:
        if self._stamp is None:
            raise ProtocolError("the server answered a document before it sent the stamp")
        document = self._outstanding.pop(result.sequence, None)
        if document is None:
            raise ProtocolError(f"the server answered document {result.sequence}, not one asked")
        self._reconnection.progress()
        self._outbox.put(wire.decode_result(result, self._stamp, document))
