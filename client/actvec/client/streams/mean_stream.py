"""A job that computes a corpus mean and outlives its connections, its server and its client.

The client numbers documents and keeps them until the server has made them durable. If the stream
breaks, the client opens a new one, the server reports the job's last commit, and the client resends
the rest. A client that starts over draws the documents from the beginning and sends those after the
commit. Both sides name the documents by a digest, so a job never continues with another corpus.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import grpc.aio

from actvec.client.errors import CorpusChanged, ProtocolError, ServerUnavailable
from actvec.client.messages import means as means_wire
from actvec.client.records.inputs import Streamable
from actvec.client.records.means import CorpusMean, MeanProgress
from actvec.client.records.model import ModelInfo
from actvec.client.records.settings import MeanSettings
from actvec.client.streams.in_flight import Documents, cost
from actvec.client.streams.prefetch import Prefetch, open_feed
from actvec.client.streams.uncommitted import Uncommitted
from actvec.client.transport.connection import Connection
from actvec.client.transport.reconnecting import BrokenError, Reconnection, run_duplex
from actvec.v1 import means_pb2

OnProgress = Callable[[MeanProgress], None]

# Documents drawn at a time, and drawn ahead if they are short.
_BATCH = 64
_AHEAD = 256

Call: TypeAlias = (
    "grpc.aio.StreamStreamCall["
    "means_pb2.StreamCorpusMeanRequest, means_pb2.StreamCorpusMeanResponse]"
)
Opened = asyncio.Future[means_pb2.CorpusMeanCommit]


class MeanStream:
    """Documents in, a mean out, each document counted exactly once."""

    def __init__(
        self,
        connection: Connection,
        settings: MeanSettings,
        retry_for: float,
        on_progress: OnProgress | None,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._on_progress = on_progress
        self._reconnection = Reconnection(connection.target, retry_for)
        # By this the server recognizes the job's holder on a new connection, and returns the job at
        # once.
        self._holder = secrets.token_hex(16)
        self._backlog = Uncommitted()
        self._exhausted = False
        self._committed = asyncio.Event()
        self._rate = 0.0
        self._mean: CorpusMean | None = None

    async def run(
        self, documents: Documents, ask_info: Callable[[], Coroutine[Any, Any, ModelInfo]]
    ) -> CorpusMean:
        """Talk to the server until the mean is finished, over as many streams as it takes.

        Raises:
            ActvecError: the job cannot continue.
            Exception: whatever `documents` raised; the mean is not finished then.
        """
        self._backlog.limits = (await ask_info()).limits
        feed = open_feed(documents, _AHEAD, cost)
        try:
            while self._mean is None:
                try:
                    await self._converse(feed)
                    if feed.error is not None:
                        raise feed.error
                except BrokenError as broken:
                    self._connection.broke()
                    pending = f"{len(self._backlog)} documents are not durable yet"
                    await self._reconnection.wait(broken, pending)
        finally:
            feed.close()
        return self._mean

    async def _converse(self, feed: Prefetch[Streamable]) -> None:
        """Run one stream, from its opening to its end.

        Raises:
            BrokenError: another attempt may succeed.
            ActvecError: another attempt would fail too.
        """
        call = await self._connection.open(lambda stub: stub.StreamCorpusMean)
        opened: Opened = asyncio.get_running_loop().create_future()
        await run_duplex(call, self._send(call, feed, opened), self._receive(call, feed, opened))

    async def _send(self, call: Call, feed: Prefetch[Streamable], opened: Opened) -> None:
        # If the call has ended, its reader reports why.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            job = means_wire.encode_job(self._settings, self._holder)
            await call.write(means_pb2.StreamCorpusMeanRequest(open=job))
            await self._continue_from(await opened, feed)
            while self._backlog.unsent or not self._exhausted:
                if self._backlog.unsent:
                    await call.write(self._backlog.next_message())
                elif not self._backlog.full:
                    await self._draw(feed)
                else:
                    self._committed.clear()
                    await self._committed.wait()
            # A corpus that could not be read to its end has no mean yet. What was read counts: the
            # server makes it durable when the client half-closes.
            if feed.error is None:
                finish = means_pb2.CorpusMeanFinish(documents=self._backlog.numbered)
                await call.write(means_pb2.StreamCorpusMeanRequest(finish=finish))
            await call.done_writing()

    async def _continue_from(
        self, opened: means_pb2.CorpusMeanCommit, feed: Prefetch[Streamable]
    ) -> None:
        """Continue with the documents after the server's last commit.

        Raises:
            ServerUnavailable: the server has lost documents that it had committed.
            CorpusChanged: the job has other documents than these.
            Exception: whatever the documents' iterable raised.
        """
        backlog, job, there = self._backlog, self._settings.job, opened.next_sequence
        if there < backlog.committed:
            raise ServerUnavailable(
                f"the server lost part of job {job}: {backlog.committed} documents were "
                f"durable, now {there} are. Run the job again: it reads the corpus from "
                "the start and continues from there"
            )
        backlog.rewind()
        backlog.commit(there)
        while backlog.committed < there and not self._exhausted:
            await self._draw(feed)
            backlog.commit(there)
        if backlog.committed < there:
            raise feed.error or CorpusChanged(
                f"job {job} has {there} documents already, and this corpus has only "
                f"{backlog.numbered}: it is another corpus, or was cut. Use another job "
                "name"
            )
        if opened.corpus_sha256 != backlog.committed_corpus:
            raise CorpusChanged(
                f"job {job} has {there} documents already, and they are not the first "
                f"{there} of this corpus. Use another job name, or the corpus that the "
                "job started with"
            )

    async def _draw(self, feed: Prefetch[Streamable]) -> None:
        items = await feed.take(_BATCH)
        self._exhausted = not items
        if items:
            # Durable documents count too: it may take longer to read past them than a server keeps
            # an idle call.
            self._reconnection.progress()
            feed.release(sum(map(cost, items)))
        for item in items:
            self._backlog.add(item)

    async def _receive(self, call: Call, feed: Prefetch[Streamable], opened: Opened) -> None:
        try:
            while isinstance(response := await call.read(), means_pb2.StreamCorpusMeanResponse):
                self._hear(response, opened)
        except grpc.aio.AioRpcError as error:
            raise self._connection.stream_error(error) from error
        if self._mean is None and not (self._exhausted and feed.error is not None):
            raise BrokenError("the server ended the stream early")

    def _hear(self, response: means_pb2.StreamCorpusMeanResponse, opened: Opened) -> None:
        event = response.WhichOneof("event")
        if event == "opened":
            if not opened.done():
                opened.set_result(response.opened)
            # With no documents pending, the server ended an idle call; it did not fail.
            if not len(self._backlog):
                self._reconnection.progress()
            self._tell(means_wire.decode_commit(response.opened, self._rate))
        elif not opened.done():
            raise ProtocolError("the server answered before it reported the state of the job")
        elif event == "commit":
            self._backlog.commit(response.commit.next_sequence)
            self._committed.set()
            self._reconnection.progress()
            self._tell(means_wire.decode_commit(response.commit, self._rate))
        elif event == "progress":
            committed = self._backlog.committed
            self._rate = response.progress.tokens_per_second
            self._tell(means_wire.decode_progress(response.progress, committed))
        elif event == "finished":
            self._mean = means_wire.decode_mean(response.finished)

    def _tell(self, progress: MeanProgress) -> None:
        if self._on_progress is not None:
            self._on_progress(progress)
