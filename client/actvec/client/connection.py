"""One channel to one server: unary calls with retries, and streams to be opened."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio

from actvec.client.channel import Target, TlsFiles, open_channel, token_metadata
from actvec.client.errors import (
    ActvecError,
    ClientClosed,
    InvalidArgument,
    ProtocolError,
    from_rpc,
    is_break,
    is_busy,
)
from actvec.client.retry import Backoff
from actvec.v1 import means_pb2, service_pb2_grpc, vectors_pb2

Response = TypeVar("Response")
StreamCall: TypeAlias = (
    "grpc.aio.StreamStreamCall[vectors_pb2.StreamVectorsRequest, vectors_pb2.StreamVectorsResponse]"
)
MeanCall: TypeAlias = (
    "grpc.aio.StreamStreamCall["
    "means_pb2.StreamCorpusMeanRequest, means_pb2.StreamCorpusMeanResponse]"
)

# A server that is not there is reported within about a second, not after a whole timeout.
_ATTEMPTS = 5
_BACKOFF = Backoff(initial=0.1, maximum=2.0)


class Connection:
    """One channel, opened at the first call, in the event loop of that call."""

    def __init__(self, target: str, token: str | None, tls: TlsFiles) -> None:
        """Remember where and as whom; nothing is sent.

        Raises:
            InvalidTarget: `target` is neither HOST:PORT nor https://HOST:PORT.
            InvalidArgument: `tls` is for a connection without TLS.
            InsecureToken: the token would travel in the clear to another machine.
        """
        self._target = Target.parse(target)
        if tls and not self._target.encrypted:
            raise InvalidArgument(
                f"certificates are for TLS; write the target as https://{self._target}"
            )
        self._tls = tls
        self._metadata = token_metadata(token, self._target)
        self._channel: grpc.aio.Channel | None = None
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def target(self) -> str:
        """The server's address, as it was given."""
        return str(self._target)

    async def unary(
        self,
        method: Callable[
            ["service_pb2_grpc.ActivationVectorServiceAsyncStub"],
            "grpc.aio.UnaryUnaryMultiCallable[Any, Response]",
        ],
        request: object,
        seconds: float,
        *,
        repeatable: bool = True,
    ) -> Response:
        """Call a unary method of the service, again where it may be, within `seconds`.

        Args:
            method: Which.
            request: What it is sent.
            seconds: How long it may take, all in all.
            repeatable: Whether it may be sent again where it may have been done already.

        Raises:
            ActvecError: what the server or the connection said.
        """
        call = method(self._stub())

        async def attempt(remaining: float) -> Response:
            return decoded(await call(request, timeout=remaining, metadata=self._metadata))

        return await self._repeat(attempt, seconds, repeatable=repeatable)

    def open_vector_stream(self) -> StreamCall:
        """Open a stream of vectors; a server that is not there shows when it is read.

        Raises:
            ClientClosed: `close` was called.
        """
        call: StreamCall = self._stub().StreamVectors(metadata=self._metadata)
        return call

    def open_mean_stream(self) -> MeanCall:
        """Open a stream to a mean; a server that is not there shows when it is read.

        Raises:
            ClientClosed: `close` was called.
        """
        call: MeanCall = self._stub().StreamCorpusMean(metadata=self._metadata)
        return call

    async def download_mean(
        self, name: str, seconds: float
    ) -> list[means_pb2.DownloadCorpusMeanResponse]:
        """The record of a mean and the pieces of its file.

        Raises:
            ActvecError: what the server or the connection said.
        """
        request = means_pb2.DownloadCorpusMeanRequest(corpus_mean=name)
        stub = self._stub()

        async def attempt(remaining: float) -> list[means_pb2.DownloadCorpusMeanResponse]:
            call = stub.DownloadCorpusMean(request, timeout=remaining, metadata=self._metadata)
            return [decoded(response) async for response in call]

        return await self._repeat(attempt, seconds)

    async def upload_mean(
        self, parts: Sequence[means_pb2.UploadCorpusMeanRequest], seconds: float
    ) -> means_pb2.UploadCorpusMeanResponse:
        """Store a mean from the pieces of its file; again is the same, its content names it.

        Raises:
            ActvecError: what the server or the connection said.
        """
        stub = self._stub()

        async def attempt(remaining: float) -> means_pb2.UploadCorpusMeanResponse:
            call = stub.UploadCorpusMean(iter(parts), timeout=remaining, metadata=self._metadata)
            return decoded(await call)

        return await self._repeat(attempt, seconds)

    async def _repeat(
        self,
        attempt: Callable[[float], Awaitable[Response]],
        seconds: float,
        *,
        repeatable: bool = True,
    ) -> Response:
        """Try within `seconds`, each time in those that remain, where it may be tried again."""
        deadline = time.monotonic() + seconds
        failures = 0
        while True:
            try:
                return await attempt(max(deadline - time.monotonic(), 0.001))
            except grpc.aio.AioRpcError as error:
                failures += 1
                pause = _BACKOFF.pause(failures)
                broken = repeatable and is_break(error) and failures < _ATTEMPTS
                again = is_busy(error) or broken
                if not again or time.monotonic() + pause >= deadline:
                    raise from_rpc(error, self.target) from error
            except asyncio.CancelledError:
                self.raise_if_closed()
                raise
            await asyncio.sleep(pause)

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

    def error(self, error: grpc.aio.AioRpcError) -> ActvecError:
        """The error of this library for an error of this channel."""
        return from_rpc(error, self.target)

    def adopt(self, task: asyncio.Task[None]) -> None:
        """Cancel a task, and wait for its end, before the channel is closed under it."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel what is in flight and disconnect."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def _stub(self) -> "service_pb2_grpc.ActivationVectorServiceAsyncStub":
        if self._closed:
            raise _closed_error()
        if self._channel is None:
            self._channel = open_channel(self._target, self._tls)
        return service_pb2_grpc.ActivationVectorServiceStub(self._channel)


def decoded(response: Response | None) -> Response:
    """A response; gRPC gives None for bytes that are no message, and for an answer without one.

    Raises:
        ProtocolError: there is none.
    """
    if response is None:
        raise ProtocolError("the server's answer is missing, or is no message of actvec.v1")
    return response


def _closed_error() -> ClientClosed:
    return ClientClosed("this client is closed; make another one")
