"""One server's part of a stream: a conversation that is begun again wherever it breaks."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import grpc.aio

from actvec.client import wire
from actvec.client.connection import Connection, StreamCall
from actvec.client.conversation import BrokenError, Reconnection, converse
from actvec.client.errors import ProtocolError, ServerUnavailable, is_break, is_busy
from actvec.client.work import Work
from actvec.v1 import vectors_pb2

_log = logging.getLogger("actvec.client")


class Lane:
    """Takes documents from the work, has them computed, and gives back what breaks under it.

    Args:
        connection: To its server.
        work: What is to be computed.
        room: Documents that it has at the server at a time.
        retry_for: Seconds without progress after which it gives up.
    """

    def __init__(self, connection: Connection, work: Work, room: int, retry_for: float) -> None:
        self._connection = connection
        self._work = work
        self._room = room
        self._reconnection = Reconnection(connection.target, retry_for)
        self._outstanding: dict[int, wire.OutgoingDocument] = {}
        self._answered = asyncio.Event()
        self._all_sent = False

    async def run(self) -> None:
        """Talk to the server until all of the work is answered, here or in other lanes.

        Raises:
            ServerUnavailable: it got no further for too long; nothing is outstanding here.
            ActvecError: the server refused.
            Exception: what `work` raised.
        """
        while True:
            try:
                await self._converse()
                if not await self._work.pending():
                    return
            except BrokenError as broken:
                self._connection.broke()
                self._give_back()
                # Without a document to send there is nothing to connect for, and no time passes.
                if not self._work.unsent:
                    self._reconnection.progress()
                unanswered = await self._work.pending()
                if not unanswered:
                    return
                await self._reconnection.wait(broken, f"{unanswered} documents are unanswered")

    async def _converse(self) -> None:
        """One stream, from its opening to its end.

        Raises:
            BrokenError: it may be tried again.
            ActvecError: it may not.
        """
        self._all_sent = False
        call = await self._open()
        if call is not None:
            await converse(call, self._send(call), self._receive(call))

    async def _open(self) -> "StreamCall | None":
        """A stream, once the server is found; None where other lanes have done all before."""
        opening = asyncio.create_task(self._connection.open_vector_stream())
        finished = asyncio.create_task(self._work.finished())
        try:
            await asyncio.wait({opening, finished}, return_when=asyncio.FIRST_COMPLETED)
            return opening.result() if opening.done() else None
        finally:
            opening.cancel()
            finished.cancel()
            await asyncio.gather(opening, finished, return_exceptions=True)

    def _give_back(self) -> None:
        """Leave what is outstanding to whichever lane takes it next."""
        self._work.give_back(list(self._outstanding.values()))
        self._outstanding.clear()

    async def _send(self, call: StreamCall) -> None:
        settings = wire.encode_settings(self._work.settings)
        # A call that is over says why to whoever reads it.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(vectors_pb2.StreamVectorsRequest(settings=settings))
            while documents := await self._next_documents():
                messages = [document.message for document in documents]
                await call.write(vectors_pb2.StreamVectorsRequest(documents=messages))
            self._all_sent = True
            await call.done_writing()

    async def _next_documents(self) -> Sequence[wire.OutgoingDocument]:
        while len(self._outstanding) >= self._room:
            self._answered.clear()
            await self._answered.wait()
        documents = await self._work.next_message(self._room - len(self._outstanding))
        # At once, so that none is lost where this is cancelled.
        for document in documents:
            self._outstanding[document.message.sequence] = document
        return documents

    async def _receive(self, call: StreamCall) -> None:
        try:
            while isinstance(response := await call.read(), vectors_pb2.StreamVectorsResponse):
                if response.HasField("stamp"):
                    self._work.check_stamp(response.stamp)
                for result in response.results:
                    self._accept(result)
        except grpc.aio.AioRpcError as error:
            if is_break(error) or is_busy(error):
                raise BrokenError(str(self._connection.error(error))) from error
            raise self._connection.error(error) from error
        if self._outstanding or not self._all_sent:
            raise BrokenError("the server ended the stream early")

    def _accept(self, result: vectors_pb2.DocumentResult) -> None:
        document = self._outstanding.pop(result.sequence, None)
        if document is None:
            raise ProtocolError(f"the server answered document {result.sequence}, not one asked")
        self._reconnection.progress()
        self._answered.set()
        self._work.answer(result, document)


async def run_lanes(lanes: Sequence[Lane]) -> None:
    """Run lanes until the work is done; one that gives up leaves its part to the others.

    Raises:
        ServerUnavailable: all of them gave up.
        ActvecError: a server refused.
        Exception: what the work raised.
    """
    tasks = running = {asyncio.create_task(lane.run()) for lane in lanes}
    # One that ends by itself has seen that all is answered.
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
                    _log.warning("going on with %d servers: %s", len(running), error)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
