"""The documents of a stream between the caller and the servers: drawn, sent, answered.

Every document gets a number, the key by which its answer is matched, and is kept until it is
answered.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Iterable, Sequence
from dataclasses import replace

from actvec.client import wire
from actvec.client.errors import ActvecError, ProtocolError, StampChanged
from actvec.client.feed import Feed
from actvec.client.model import Limits
from actvec.client.outbox import Outbox
from actvec.client.vectors import Document, Failure, Result, Settings, Stamp
from actvec.v1 import vectors_pb2

Streamable = Document | Failure | str
Documents = Iterable[Streamable] | AsyncIterable[Streamable]

# Documents and bytes of one message: enough to make its cost vanish, little enough that the first
# results of a stream come early.
_MESSAGE_DOCUMENTS = 64
_MESSAGE_BYTES = 1 << 20

# Characters of text that count as one document of the window; a longer text counts as several.
_CHARACTERS = 1 << 14


def cost(item: object) -> int:
    """What a document takes of the window: 1, and 1 more for each 16,384 characters of its text.

    So the window shrinks, in documents, as they grow, and memory is bounded for any length.
    """
    text = item.text if isinstance(item, Document) else item
    return 1 + len(text) // _CHARACTERS if isinstance(text, str) else 1


class Work:
    """What is to be computed, shared by the lanes of a stream.

    Args:
        settings: How documents become vectors.
        limits: What the servers take.
        feed: Where documents come from; each has taken `cost` of its credits.
        outbox: Where results go.
        lanes: How many share it.

    Attributes:
        settings: As given; with the first stamp, `latest` becomes the id of the mean that it was.
    """

    def __init__(
        self,
        settings: Settings,
        limits: Limits,
        feed: Feed[Streamable],
        outbox: Outbox,
        lanes: int,
    ) -> None:
        self.settings = settings
        self._lanes = lanes
        self._limits = limits
        self._feed = feed
        self._outbox = outbox
        self._stamp: Stamp | None = None
        self._drawn = 0
        self._exhausted = False
        self._costs: dict[int, int] = {}
        self._unsent: deque[wire.OutgoingDocument] = deque()
        self._sent = 0
        self._changed = asyncio.Event()
        self._given_back = asyncio.Event()

    def taken(self, results: Sequence[Result]) -> None:
        """Results have reached the caller: others are drawn in the place of their documents."""
        self._feed.release(sum(self._costs.pop(result.index) for result in results))

    @property
    def unsent(self) -> int:
        """Documents that were drawn and are to be sent."""
        return len(self._unsent)

    async def pending(self) -> int:
        """Wait for documents to send; 0 when all are answered, so that none will come."""
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

    async def next_message(self, room: int) -> list[wire.OutgoingDocument]:
        """Documents for one message, `room` at most; empty where there is none to send now."""
        while not self._unsent and not self._exhausted:
            await self._more()
        message: list[wire.OutgoingDocument] = []
        limit = min(_MESSAGE_BYTES, (self._limits.max_message_bytes or _MESSAGE_BYTES) // 2)
        size = 0
        while self._unsent and len(message) < min(room, _MESSAGE_DOCUMENTS):
            size += self._unsent[0].size
            if message and size > limit:
                break
            message.append(self._unsent.popleft())
        self._sent += len(message)
        return message

    def give_back(self, documents: Sequence[wire.OutgoingDocument]) -> None:
        """Send these again, in their order: their lane broke before they were answered."""
        self._unsent.extendleft(reversed(documents))
        self._sent -= len(documents)
        self._changed.set()
        self._given_back.set()

    def check_stamp(self, message: vectors_pb2.VectorStamp) -> None:
        """See that what follows is computed as what came before.

        Raises:
            StampChanged: it is not.
        """
        stamp = wire.decode_stamp(message, self.settings)
        if self._stamp is None:
            self._stamp = stamp
            if self.settings.center:
                self.settings = replace(self.settings, center=stamp.corpus_mean_id)
        elif stamp != self._stamp:
            raise StampChanged(
                "another server, or the same after a reconnection, makes other vectors than those"
                " that came before, so the rest would not fit what is there; start over. Before:"
                f" {self._stamp}; now: {stamp}"
            )

    def answer(self, result: vectors_pb2.DocumentResult, document: wire.OutgoingDocument) -> None:
        """Hand a result over.

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
        """Wait for documents of the feed, or for those that another lane gives back."""
        if self._lanes == 1:
            await self._draw()
            return
        self._given_back.clear()
        drawing = asyncio.create_task(self._draw())
        given_back = asyncio.create_task(self._given_back.wait())
        try:
            await asyncio.wait({drawing, given_back}, return_when=asyncio.FIRST_COMPLETED)
            if drawing.done():
                drawing.result()
        finally:
            drawing.cancel()
            given_back.cancel()
            await asyncio.gather(drawing, given_back, return_exceptions=True)

    async def _draw(self) -> None:
        """Take documents from the feed; those that cannot be sent are answered here."""
        items = await self._feed.take(_MESSAGE_DOCUMENTS)
        if not items:
            self._exhausted = True
            self._changed.set()
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
        self._unsent.append(outgoing)
