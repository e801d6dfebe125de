"""The documents of a stream between the caller and the servers: drawn, sent, answered.

Every document gets a number, which matches it with its answer, and stays here until it is answered.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from actvec.client.errors import ActvecError, ProtocolError, StampChanged
from actvec.client.messages import vectors as wire
from actvec.client.messages.documents import OutgoingDocument, encode_document
from actvec.client.records.differences import differences
from actvec.client.records.inputs import Streamable, as_document, size_of
from actvec.client.records.model import ModelInfo
from actvec.client.records.settings import VectorSettings
from actvec.client.records.stamp import Stamp
from actvec.client.records.vectors import Failure, Result
from actvec.client.streams.batching import MESSAGE_DOCUMENTS, batch_by_size
from actvec.client.streams.outbox import Outbox
from actvec.client.streams.prefetch import Prefetch
from actvec.v1 import vectors_pb2

Done = TypeVar("Done")

Documents = Iterable[Streamable] | AsyncIterable[Streamable]

# Characters of text that count as one document of the window, and bytes of a vector in memory.
_CHARACTERS = 1 << 14
_RESULT_BYTES = 1 << 18


def cost(item: object) -> int:
    """Return a document's share of a window: 1, and 1 more per 16,384 characters of its text.

    So the window, counted in documents, shrinks as they grow, and memory stays bounded for any
    length.
    """
    return 1 + size_of(item) // _CHARACTERS


def costs_of(settings: VectorSettings, info: ModelInfo) -> Callable[[object], int]:
    """Extend `cost` by 1 per 256 KiB of the vector: results take memory as documents do."""
    # Vectors are float32 once they arrive.
    result = 4 * math.prod(wire.shape_of(settings, info)) // _RESULT_BYTES
    return lambda item: cost(item) + result


class InFlight:
    """Documents to compute, shared by the lanes of a stream.

    Args:
        settings: How documents become vectors.
        info: What the servers serve.
        feed: The source of documents, each of which has taken `cost` of its credits.
        outbox: The destination of results.
        cost: A document's share of the feed's credits.
        lanes: How many lanes share the documents.

    Attributes:
        settings: As given; the first stamp replaces `latest` by the id of the mean it meant.
    """

    def __init__(
        self,
        settings: VectorSettings,
        info: ModelInfo,
        feed: Prefetch[Streamable],
        outbox: Outbox,
        *,
        cost: Callable[[object], int],
        lanes: int,
    ) -> None:
        self.settings = settings
        self._lanes = lanes
        self._info = info
        self._limits = info.limits
        self._cost = cost
        self._feed = feed
        self._outbox = outbox
        self._stamp: Stamp | None = None
        self._drawn = 0
        self._exhausted = False
        self._costs: dict[int, int] = {}
        self._unsent: deque[OutgoingDocument] = deque()
        self._sent = 0
        self._changed = asyncio.Event()
        self._given_back = asyncio.Event()

    def taken(self, results: Sequence[Result]) -> None:
        """Draw further documents in place of those whose results reached the caller."""
        self._feed.release(sum(self._costs.pop(result.index) for result in results))

    @property
    def unsent(self) -> int:
        """Number of documents drawn and not yet sent."""
        return len(self._unsent)

    async def pending(self) -> int:
        """Wait for documents to send; return 0 once all are answered and none will come."""
        while not self._unsent and not self._finished:
            if self._exhausted:
                await self._change()
            else:
                await self._more()
        return self.unsent

    async def finished(self) -> None:
        """Wait until all documents are answered."""
        while not self._finished:
            await self._change()

    async def next_message(self, room: int) -> list[OutgoingDocument]:
        """Return documents for one message, at most `room`; empty if there are none to send now."""
        while not self._unsent and not self._exhausted:
            await self._more()
        message = batch_by_size(self._unsent, self._limits, most=room)
        self._sent += len(message)
        return message

    def give_back(self, documents: Sequence[OutgoingDocument]) -> None:
        """Queue these again, in their order: their lane broke before they were answered."""
        self._unsent.extendleft(reversed(documents))
        self._sent -= len(documents)
        self._changed.set()
        self._given_back.set()

    def check_stamp(self, message: vectors_pb2.VectorStamp) -> None:
        """Check that the following vectors match the earlier ones.

        Raises:
            StampChanged: they do not.
        """
        stamp = wire.decode_stamp(message, self.settings, self._info)
        if self._stamp is None:
            self._stamp = stamp
            if self.settings.center:
                self.settings = replace(self.settings, center=stamp.corpus_mean_id)
        elif stamp != self._stamp:
            raise StampChanged(
                "the server, or another one after a reconnection, now makes different "
                "vectors, which would not match the earlier ones; start over:"
                f" {differences(self._stamp.to_dict(), stamp.to_dict())}"
            )

    def answer(self, result: vectors_pb2.DocumentResult, document: OutgoingDocument) -> None:
        """Pass a result on.

        Raises:
            ProtocolError: no stamp came before it.
        """
        if self._stamp is None:
            raise ProtocolError("the server answered a document before it sent the stamp")
        self._sent -= 1
        self._outbox.put(wire.decode_result(result, self._stamp, document))
        self._changed.set()

    @property
    def _finished(self) -> bool:
        return self._exhausted and not self._unsent and not self._sent

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _more(self) -> None:
        """Wait for documents from the feed, or for those that another lane gives back."""
        if self._lanes == 1:
            await self._draw()
        else:
            self._given_back.clear()
            await unless(self._given_back.wait(), self._draw())

    async def _draw(self) -> None:
        """Take documents from the feed; answer those that cannot travel."""
        items = await self._feed.take(MESSAGE_DOCUMENTS)
        if not items:
            self._exhausted = True
            self._changed.set()
        for item in items:
            self._admit(item)

    def _admit(self, item: Streamable) -> None:
        index = self._drawn
        self._drawn += 1
        self._costs[index] = self._cost(item)
        document = as_document(item, index)
        if isinstance(document, Failure):
            self._outbox.put(replace(document, index=index))
            return
        try:
            outgoing = encode_document(document, index, self._limits)
        except ActvecError as error:
            self._outbox.put(Failure.of(error, document.id, index, document.columns))
            return
        self._unsent.append(outgoing)


async def unless(
    event: Coroutine[Any, Any, object], work: Coroutine[Any, Any, Done]
) -> Done | None:
    """Return the result of `work`; cancel it and return None if `event` comes first."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(event)
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)
