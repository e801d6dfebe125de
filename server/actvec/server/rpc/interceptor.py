"""One interceptor around every call, of our service and of health and reflection alike."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any
from urllib.parse import unquote

import grpc

from actvec.server.access.bearer import Tokens
from actvec.server.budget import Budget
from actvec.server.config import Limits
from actvec.server.errors import IdleError, MessageTooLargeError, RequestError, UnknownMethodError
from actvec.server.rpc.admission import Admission
from actvec.server.rpc.answers import CountAnswers
from actvec.server.rpc.call import REQUEST_ID, Call, CallListener, request_id
from actvec.server.rpc.idle import until_idle
from actvec.server.rpc.status import as_status, let_go

# Seconds before a call's deadline in which a cancelled call is taken for one that ran into it: the
# caller, whose clock is another, cancels it then.
_CLOCKS_DIFFER = 0.1

# Bytes of a request to health or reflection.
_SHORT_REQUEST = 1 << 16


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls before it reads any of their messages, and reports all of them.

    gRPC reads the message of a unary call before it runs the handler, and writes its answer after.
    Here every handler takes and returns a stream of messages (on the wire there is no difference),
    so a caller without a token costs no more than its headers, and one that does not read holds no
    place.

    Args:
        tokens: The tokens of callers.
        limits: Limits on concurrent calls.
        listeners: Listeners to all calls, including refused ones.
        counter: Makes a counter of one call's answers.
        budget: The memory that calls may hold.
    """

    def __init__(
        self,
        tokens: Tokens,
        limits: Limits,
        listeners: Sequence[CallListener],
        counter: Callable[[], CountAnswers],
        budget: Budget,
    ) -> None:
        self._tokens = tokens
        self._budget = budget
        self._admission = Admission(limits)
        self._patience = limits.idle_seconds
        self._listeners = listeners
        self._counter = counter

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a call, wrapped, even if the server has no such method."""
        details = handler_call_details
        found = await continuation(details)
        handler = found or _unknown(details.method)
        behavior = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )
        streaming = handler.request_streaming or handler.response_streaming

        def passing(context: Any) -> AbstractAsyncContextManager[Callable[[object], None]]:
            return self._passing(details, context, known=bool(found), streaming=streaming)

        async def argument(requests: AsyncIterator[Any]) -> Any:
            return requests if handler.request_streaming else await self._first(requests)

        async def answer(_: AsyncIterator[Any], context: Any) -> None:
            async with passing(context) as count:
                response = await behavior(await argument(_Messages(context)), context)
                await self._write(response, context)
                count(response)

        async def answer_stream(_: AsyncIterator[Any], context: Any) -> None:
            async with passing(context) as count:
                responses = behavior(await argument(_Messages(context)), context)
                if inspect.isawaitable(responses):
                    # It writes by itself, as the watching of health does.
                    await responses
                    return
                # Closed at once when the call ends early, not when garbage is collected.
                async with aclosing(responses):
                    async for response in responses:
                        await self._write(response, context)
                        count(response)

        return grpc.stream_stream_rpc_method_handler(
            answer_stream if handler.response_streaming else answer,
            request_deserializer=_small_only(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    @asynccontextmanager
    async def _passing(
        self, details: grpc.HandlerCallDetails, context: Any, *, known: bool, streaming: bool
    ) -> AsyncIterator[Callable[[object], None]]:
        """Check and admit a call and notify listeners; yields the counter of its responses."""
        metadata = details.invocation_metadata
        call = Call(request_id(metadata), details.method, known, unquote(context.peer()))
        answers_of = self._counter()

        def count(response: object) -> None:
            answers = answers_of(response)
            if answers is not None:
                call.answers.add(answers)
                for listener in self._listeners:
                    listener.answered(call, answers)

        context.set_trailing_metadata(((REQUEST_ID, call.id),))
        for listener in self._listeners:
            listener.began(call)
        code: grpc.StatusCode | None = None
        try:
            async with as_status(context):
                token = self._tokens.check(details.method, metadata)
                caller = token or _certificate(context) or call.peer.rpartition(":")[0]
                with (
                    self._admission.of_caller(caller, details.method),
                    self._budget.of_call(caller),
                ):
                    try:
                        with self._admission.of_server(details.method, streaming=streaming):
                            yield count
                    except _StalledError as stalled:
                        # Others have its place. Its unread answers stay in memory as long as its
                        # connection, and count for its caller: gRPC has no way to drop them, and
                        # sends the status of a call after everything that was written.
                        await _written(stalled.writing)
                        raise IdleError(
                            f"the client read no answer for {self._patience:g} seconds"
                        ) from None
            code = context.code() or grpc.StatusCode.OK
        except grpc.aio.AbortError as aborted:
            code = context.code()
            let_go(aborted)
            raise
        finally:
            call.end(code or _code_of_cut(context))
            for listener in self._listeners:
                listener.ended(call)

    async def _first(self, requests: AsyncIterator[Any]) -> Any:
        """The one message of a unary call."""
        request = await anext(until_idle(requests, self._patience), None)
        if request is None:
            raise RequestError("request", "is missing: the call ended without a message")
        return request

    async def _write(self, response: Any, context: Any) -> None:
        """Hand a response to gRPC, which takes no more than the client reads.

        Raises:
            _StalledError: the client does not read.
        """
        writing = asyncio.ensure_future(context.write(response))
        try:
            done, _ = await asyncio.wait({writing}, timeout=self._patience)
        except asyncio.CancelledError:
            writing.cancel()
            raise
        if not done:
            raise _StalledError(writing)
        await _written(writing)


class _Messages(AsyncIterator[Any]):
    """The requests of a client. A generator, such as gRPC's own, would keep each message."""

    def __init__(self, context: Any) -> None:
        self._context = context

    async def __anext__(self) -> Any:
        message = await self._context.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message


async def _written(writing: "asyncio.Future[None]") -> None:
    """Return when a response is written."""
    try:
        await writing
    except grpc.aio.BaseError:
        # The call or its connection is gone, so nobody receives the status.
        raise asyncio.CancelledError from None


def _small_only(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Health and reflection parse on the event loop, so their requests must be short.

    Our own methods have no such function and are given bytes; see `decoding`.
    """
    if deserialize is None:
        return None

    def short(raw: bytes) -> Any:
        if len(raw) > _SHORT_REQUEST:
            raise MessageTooLargeError(
                "request", f"has {len(raw)} bytes; this method accepts at most {_SHORT_REQUEST}"
            )
        return deserialize(raw)

    return short


class _StalledError(Exception):
    """A client takes no more answers; `writing` is done when it does, or is gone."""

    def __init__(self, writing: "asyncio.Future[None]") -> None:
        super().__init__()
        self.writing = writing


def _certificate(context: Any) -> str:
    """The name in a caller's certificate; empty without one."""
    return b", ".join(context.peer_identities() or ()).decode("utf-8", "replace")


def _code_of_cut(context: Any) -> grpc.StatusCode:
    """How a call ended that its caller ended, or whose connection broke."""
    remaining = context.time_remaining()
    if remaining is not None and remaining < _CLOCKS_DIFFER:
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return grpc.StatusCode.CANCELLED


def _unknown(method: str) -> Any:
    async def refuse(_requests: Any, _context: Any) -> None:
        raise UnknownMethodError(method)

    return grpc.stream_unary_rpc_method_handler(refuse)
