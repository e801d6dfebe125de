"""One server's part of a stream: a call that starts again whenever it breaks."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import TypeAlias

import grpc.aio

from actvec.client.errors import ProtocolError, ServerUnavailable
from actvec.client.messages import vectors as wire
from actvec.client.messages.documents import OutgoingDocument
from actvec.client.streams.in_flight import InFlight, unless
from actvec.client.transport.connection import Connection
from actvec.client.transport.reconnecting import BrokenError, Reconnection, run_duplex
from actvec.v1 import vectors_pb2

Call: TypeAlias = (
    "grpc.aio.StreamStreamCall[vectors_pb2.StreamVectorsRequest, vectors_pb2.StreamVectorsResponse]"
)

_log = logging.getLogger("actvec.client")


class VectorCall:
    """Takes documents from the stream, gets them computed, and returns them if it breaks.

    Args:
        connection: The connection to its server.
        work: The documents to compute.
        room: Documents that it keeps at the server at a time.
        retry_for: Seconds without progress after which it gives up.
    """

    def __init__(self, connection: Connection, work: InFlight, room: int, retry_for: float) -> None:
        self._connection = connection
        self._work = work
        self._room = room
        self._reconnection = Reconnection(connection.target, retry_for)
        self._outstanding: dict[int, OutgoingDocument] = {}
        self._accepted = asyncio.Event()
        self._answered = asyncio.Event()
        self._all_sent = False

    async def run(self) -> None:
        """Talk to the server until every document is answered, here or in other lanes.

        Raises:
            ServerUnavailable: it made no progress for too long; nothing is outstanding here.
            ActvecError: the server refused.
            Exception: whatever `work` raised.
        """
        while True:
            try:
                await self._converse()
                if not await self._work.pending():
                    return
            except BrokenError as broken:
                self._connection.broke()
                self._give_back()
                # Without a document to send there is no reason to connect, and no time passes.
                if not self._work.unsent:
                    self._reconnection.progress()
                unanswered = await self._work.pending()
                if not unanswered:
                    return
                await self._reconnection.wait(broken, f"{unanswered} documents are unanswered")

    async def _converse(self) -> None:
        """Run one stream, from its opening to its end.

        Raises:
            BrokenError: another attempt may succeed.
            ActvecError: another attempt would fail too.
        """
        self._all_sent = False
        self._accepted.clear()
        # Other lanes may finish everything before a server is found.
        opening = self._connection.open(lambda stub: stub.StreamVectors)
        call = await unless(self._work.finished(), opening)
        if call is not None:
            await run_duplex(call, self._send(call), self._receive(call))

    def _give_back(self) -> None:
        """Return the outstanding documents, for any lane to take."""
        self._work.give_back(list(self._outstanding.values()))
        self._outstanding.clear()

    async def _send(self, call: Call) -> None:
        settings = wire.encode_settings(self._work.settings)
        # If the call has ended, its reader reports why.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(vectors_pb2.StreamVectorsRequest(settings=settings))
            # If gRPC cannot write since the server has refused the settings, it forgets why.
            await self._accepted.wait()
            while documents := await self._next_documents():
                messages = [document.message for document in documents]
                await call.write(vectors_pb2.StreamVectorsRequest(documents=messages))
            self._all_sent = True
            await call.done_writing()

    async def _next_documents(self) -> Sequence[OutgoingDocument]:
        while len(self._outstanding) >= self._room:
            self._answered.clear()
            await self._answered.wait()
        documents = await self._work.next_message(self._room - len(self._outstanding))
        # Recorded before any await, so that a cancellation loses none.
        for document in documents:
            self._outstanding[document.message.sequence] = document
        return documents

    async def _receive(self, call: Call) -> None:
        try:
            while isinstance(response := await call.read(), vectors_pb2.StreamVectorsResponse):
                if response.HasField("stamp"):
                    self._work.check_stamp(response.stamp)
                    self._accepted.set()
                for result in response.results:
                    self._accept(result)
        except grpc.aio.AioRpcError as error:
            raise self._connection.stream_error(error) from error
        if self._outstanding or not self._all_sent:
            raise BrokenError("the server ended the stream early")

    def _accept(self, result: vectors_pb2.DocumentResult) -> None:
        document = self._outstanding.pop(result.sequence, None)
        if document is None:
            raise ProtocolError(
                f"the server answered document {result.sequence}, which it was not sent"
            )
        self._reconnection.progress()
        self._answered.set()
        self._work.answer(result, document)


async def run_lanes(lanes: Sequence[VectorCall]) -> None:
    """Run lanes until all documents are answered; one that gives up leaves its part to the others.

    Raises:
        ServerUnavailable: all of them gave up.
        ActvecError: a server refused.
        Exception: whatever the documents' iterable raised.
    """
    tasks = running = {asyncio.create_task(lane.run()) for lane in lanes}
    # A lane returns only after it has seen that everything is answered.
    finished = False
    try:
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            finished = finished or any(task.exception() is None for task in done)
            for task in done:
                try:
                    task.result()
                except ServerUnavailable as error:
                    if not running and not finished:
                        raise
                    _log.warning("continuing with %d servers: %s", len(running), error)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
