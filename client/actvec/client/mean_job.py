"""A job that makes a corpus mean and outlives its connections, its server and its client.

Documents are numbered and kept until the server says that they are durable. Where the stream
breaks, a new one is opened, the server says how far the job is committed, and the rest is sent
again. A client that begins anew draws the documents from the start and sends those that follow.
Both sides name the documents by a digest, so that a job never goes on with another corpus.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import grpc.aio

from actvec.client import means_wire
from actvec.client.backlog import Backlog
from actvec.client.connection import Connection, MeanCall
from actvec.client.conversation import BrokenError, Reconnection, converse
from actvec.client.errors import (
    CorpusChanged,
    ProtocolError,
    ServerUnavailable,
    is_break,
    is_busy,
)
from actvec.client.feed import Feed, open_feed
from actvec.client.means import CorpusMean, MeanProgress, MeanSettings
from actvec.client.model import Limits
from actvec.client.work import Documents, Streamable, cost
from actvec.v1 import means_pb2

OnProgress = Callable[[MeanProgress], None]

# Documents drawn at a time, and drawn ahead, where they are short.
_BATCH = 64
_AHEAD = 256

Opened = asyncio.Future[means_pb2.CorpusMeanCommit]


class MeanJob:
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
        # The server gives the job back at once to whom it knows, also from a new connection.
        self._holder = secrets.token_hex(16)
        self._backlog = Backlog()
        self._exhausted = False
        self._committed = asyncio.Event()
        self._rate = 0.0
        self._mean: CorpusMean | None = None

    async def run(
        self, documents: Documents, ask_limits: Callable[[], Coroutine[Any, Any, Limits]]
    ) -> CorpusMean:
        """Talk to the server until the mean is made, over as many streams as it takes.

        Raises:
            ActvecError: the job cannot go on.
            Exception: whatever `documents` raised; the mean is not finished then.
        """
        self._backlog.limits = await ask_limits()
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

    async def _converse(self, feed: Feed[Streamable]) -> None:
        """One stream, from its opening to its end.

        Raises:
            BrokenError: it may be tried again.
            ActvecError: it may not.
        """
        call = await self._connection.open_mean_stream()
        opened: Opened = asyncio.get_running_loop().create_future()
        await converse(call, self._send(call, feed, opened), self._receive(call, feed, opened))

    async def _send(self, call: MeanCall, feed: Feed[Streamable], opened: Opened) -> None:
        # A call that is over says why to whoever reads it.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            job = means_wire.encode_job(self._settings, self._holder)
            await call.write(means_pb2.StreamCorpusMeanRequest(open=job))
            await self._go_on_from(await opened, feed)
            while self._backlog.unsent or not self._exhausted:
                if self._backlog.unsent:
                    await call.write(self._backlog.next_message())
                elif not self._backlog.full:
                    await self._draw(feed)
                else:
                    self._committed.clear()
                    await self._committed.wait()
            # A corpus that could not be read to its end has no mean yet. What was read is kept: the
            # server makes it durable where the client half-closes.
            if feed.error is None:
                finish = means_pb2.CorpusMeanFinish(documents=self._backlog.numbered)
                await call.write(means_pb2.StreamCorpusMeanRequest(finish=finish))
            await call.done_writing()

    async def _go_on_from(self, opened: means_pb2.CorpusMeanCommit, feed: Feed[Streamable]) -> None:
        """Make the documents after the server's last commit those that are sent next.

        Raises:
            ServerUnavailable: the server has lost what it had committed.
            CorpusChanged: the job has other documents than these.
            Exception: whatever the documents' iterable raised.
        """
        backlog, job, there = self._backlog, self._settings.job, opened.next_sequence
        if there < backlog.committed:
            raise ServerUnavailable(
                f"the server lost part of job {job}: {backlog.committed} documents were durable,"
                f" now {there} are. Run the job again: it reads the corpus from the start and goes"
                " on from there"
            )
        backlog.rewind()
        backlog.commit(there)
        while backlog.committed < there and not self._exhausted:
            await self._draw(feed)
            backlog.commit(there)
        if backlog.committed < there:
            raise feed.error or CorpusChanged(
                f"job {job} has {there} documents already, and this corpus has only"
                f" {backlog.numbered}: it is another one, or was cut. Use another job name"
            )
        if opened.corpus_sha256 != backlog.committed_corpus:
            raise CorpusChanged(
                f"job {job} has {there} documents already, and they are not the first {there} of"
                " this corpus. Use another job name, or the corpus that the job began with"
            )

    async def _draw(self, feed: Feed[Streamable]) -> None:
        items = await feed.take(_BATCH)
        self._exhausted = not items
        if items:
            # Also where they are durable already: reading up to there may take longer than a server
            # keeps an idle call.
            self._reconnection.progress()
            feed.release(sum(map(cost, items)))
        for item in items:
            self._backlog.add(item)

    async def _receive(self, call: MeanCall, feed: Feed[Streamable], opened: Opened) -> None:
        try:
            while isinstance(response := await call.read(), means_pb2.StreamCorpusMeanResponse):
                self._hear(response, opened)
        except grpc.aio.AioRpcError as error:
            if is_break(error) or is_busy(error):
                raise BrokenError(str(self._connection.error(error))) from error
            raise self._connection.error(error) from error
        if self._mean is None and not (self._exhausted and feed.error is not None):
            raise BrokenError("the server ended the stream early")

    def _hear(self, response: means_pb2.StreamCorpusMeanResponse, opened: Opened) -> None:
        event = response.WhichOneof("event")
        if event == "opened":
            if not opened.done():
                opened.set_result(response.opened)
            # With nothing to do it is a server that ended an idle call, and not one that fails.
            if not len(self._backlog):
                self._reconnection.progress()
            self._tell(means_wire.decode_commit(response.opened, self._rate))
        elif not opened.done():
            raise ProtocolError("the server answered before it said where the job stands")
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
