"""One channel to one server: unary calls with retries, and streams to be opened."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio

from actvec.client.errors import ActvecError, ClientClosed, ProtocolError
from actvec.client.transport.address import Address, Resolver, Waking
from actvec.client.transport.channel import Metadata, TlsFiles, open_channel
from actvec.client.transport.home import Home
from actvec.client.transport.reconnecting import Backoff, BrokenError
from actvec.client.transport.runtime import PROCESS
from actvec.client.transport.seconds import TimeLeft
from actvec.client.transport.status import from_rpc, is_asleep, is_break, is_busy
from actvec.client.transport.transfer import counted, stall_timeout
from actvec.v1 import means_pb2, service_pb2_grpc

Request = TypeVar("Request")
Response = TypeVar("Response")
Stub: TypeAlias = "service_pb2_grpc.ActivationVectorServiceAsyncStub"

# Seconds that calls have which others than the broken one are at.
_LAST_CALLS = 30.0

# A server that is not there is reported within about a second, not after a whole timeout.
_ATTEMPTS = 5
_BACKOFF = Backoff(initial=0.1, maximum=2.0)


class Connection:
    """One channel, opened at the first call, in the event loop of that call.

    Args:
        place: Finds the server.
        metadata: Sent with every call.
        tls: The files for encryption.
        waking: How long to wait for a server to wake up.

    Attributes:
        home: The event loop that it belongs to.
    """

    def __init__(self, place: Resolver, metadata: Metadata, tls: TlsFiles, waking: Waking) -> None:
        self.home = Home()
        self._place = place
        self._metadata = metadata
        self._tls = tls
        self._waking = waking
        self._channel: grpc.aio.Channel | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def target(self) -> str:
        """The server, as the caller named it."""
        return str(self._place)

    async def unary(
        self,
        method: Callable[["Stub"], "grpc.aio.UnaryUnaryMultiCallable[Any, Response]"],
        request: object,
        left: TimeLeft,
        *,
        repeatable: bool = True,
    ) -> Response:
        """Call a unary method of the service within the time that is left, and retry if safe.

        Args:
            method: Which.
            request: What it is sent.
            left: How long it may take, all in all, once the server is found and awake. What it
                takes is gone from it afterwards.
            repeatable: Whether it may be sent again where it may have been done already.

        Raises:
            ActvecError: the error of the server or the connection.
        """

        async def attempt(stub: Stub, remaining: float) -> Response:
            call = method(stub)
            timeout = None if math.isinf(remaining) else remaining
            return decoded(await call(request, timeout=timeout, metadata=self._metadata))

        return await self._repeat(attempt, left, repeatable=repeatable)

    async def open(
        self,
        method: Callable[["Stub"], "grpc.aio.StreamStreamMultiCallable[Request, Response]"],
    ) -> "grpc.aio.StreamStreamCall[Request, Response]":
        """Open a stream; a server that is not there shows when it is read.

        Raises:
            ClientClosed: `close` was called.
            ActvecError: the server cannot be found.
        """
        return method(await self._stub())(metadata=self._metadata)

    async def download_mean(
        self, name: str, seconds: float
    ) -> list[means_pb2.DownloadCorpusMeanResponse]:
        """The record of a mean and the pieces of its file.

        Args:
            name: Which mean.
            seconds: How long no piece may come.

        Raises:
            DeadlineExceeded: none came for that long.
            ActvecError: the error of the server or the connection.
        """
        request = means_pb2.DownloadCorpusMeanRequest(corpus_mean=name)

        async def attempt(stub: Stub, _: float) -> list[means_pb2.DownloadCorpusMeanResponse]:
            parts = []
            async with stall_timeout(seconds, self.target) as progress:
                async for part in stub.DownloadCorpusMean(request, metadata=self._metadata):
                    progress()
                    parts.append(decoded(part))
            return parts

        return await self._repeat(attempt, TimeLeft(seconds), transfer=True)

    async def upload_mean(
        self, parts: Sequence[means_pb2.UploadCorpusMeanRequest], seconds: float
    ) -> means_pb2.UploadCorpusMeanResponse:
        """Store a mean from the pieces of its file; again is the same, its content names it.

        Args:
            parts: The pieces.
            seconds: How long no piece may go, or the answer not come after the last one.

        Raises:
            DeadlineExceeded: none went for that long.
            ActvecError: the error of the server or the connection.
        """

        async def attempt(stub: Stub, _: float) -> means_pb2.UploadCorpusMeanResponse:
            async with stall_timeout(seconds, self.target) as progress:
                # gRPC asks for a piece when it is rid of the one before.
                sending = counted(parts, progress)
                return decoded(await stub.UploadCorpusMean(sending, metadata=self._metadata))

        return await self._repeat(attempt, TimeLeft(seconds), transfer=True)

    async def _repeat(
        self,
        attempt: Callable[["Stub", float], Awaitable[Response]],
        left: TimeLeft,
        *,
        repeatable: bool = True,
        transfer: bool = False,
    ) -> Response:
        """Try within the time that is left, and retry within the rest of it, if that is safe.

        The time of a `transfer` does not count: it limits its own standstill.
        """
        failures, started = 0, time.monotonic()
        while True:
            # Finding a server, and its waking up, take none of the call's own time.
            stub = await self._stub()
            began = time.monotonic()
            try:
                response = await attempt(stub, max(left.seconds, 0.001))
            except grpc.aio.AioRpcError as error:
                waited = time.monotonic() - started
                if is_asleep(error) and waited < self._waking.seconds:
                    pause = self._waking.every
                    self._waking.tell(waited, f"{self.target} is asleep; asked it to wake up")
                else:
                    failures += 1
                    pause = _BACKOFF.pause(failures)
                    left.seconds -= pause + (0 if transfer else time.monotonic() - began)
                    broken = is_break(error)
                    if broken:
                        self.broke()
                    again = is_busy(error) or (broken and repeatable and failures < _ATTEMPTS)
                    if not again or left.seconds <= 0:
                        raise from_rpc(error, self.target) from error
            except asyncio.CancelledError:
                self.raise_if_closed()
                raise
            else:
                left.seconds -= time.monotonic() - began
                return response
            await asyncio.sleep(pause)

    def broke(self) -> None:
        """A call broke: if the server may have moved, the next call looks for it."""
        channel = self._channel
        if self._place.moves and channel is not None:
            self._channel = None
            # Other calls may still be at it.
            self.adopt(asyncio.create_task(_close(channel, _LAST_CALLS)))

    def raise_if_closed(self) -> None:
        """Tell a call that `close` cancelled from a task that its caller cancelled.

        Closing the channel cancels its calls, which raises CancelledError in the tasks that await
        them although nobody cancelled those.

        Raises:
            ClientClosed: `close` was called, and the current task is not being cancelled.
        """
        task = asyncio.current_task()
        if self._closed and not (task is not None and task.cancelling()):
            raise _closed_error() from None

    def stream_error(self, error: grpc.aio.AioRpcError) -> ActvecError | BrokenError:
        """The error of a stream: `BrokenError` if another stream may continue."""
        found = from_rpc(error, self.target)
        return BrokenError(str(found)) if is_break(error) or is_busy(error) else found

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Cancel a task, and wait for its end, before the channel is closed under it."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel calls in flight and disconnect.

        Raises:
            FailedPrecondition: its event loop is another one.
        """
        there = not self._closed and self.home.is_there()
        self._closed = True
        if not there:
            self._channel = None
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        channel, self._channel = self._channel, None
        if channel is not None:
            await _close(channel)

    async def _find(self) -> Address:
        """Find the server; `close` ends the search."""
        finding = asyncio.create_task(self._place.find())
        self.adopt(finding)
        try:
            return await finding
        except asyncio.CancelledError:
            self.raise_if_closed()
            raise

    async def _stub(self) -> "Stub":
        if not self._closed:
            self.home.check()
        async with self._opening:
            if self._closed:
                raise _closed_error()
            if self._channel is None:
                self._channel = open_channel(await self._find(), self._tls)
                PROCESS.opened(self._channel)
            return service_pb2_grpc.ActivationVectorServiceStub(self._channel)


def decoded(response: Response | None) -> Response:
    """A response; gRPC gives None for bytes that are no message, and for an answer without one.

    Raises:
        ProtocolError: there is none.
    """
    if response is None:
        raise ProtocolError("the server's answer is missing, or is not a message of actvec.v1")
    return response


async def _close(channel: grpc.aio.Channel, grace: float | None = None) -> None:
    await channel.close(grace)
    PROCESS.closed(channel)


def _closed_error() -> ClientClosed:
    return ClientClosed("this client is closed; make another one")
