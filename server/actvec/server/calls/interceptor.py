"""One interceptor around every call, of our service and of health and reflection alike."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import unquote

import grpc

from actvec.server.calls.answers import AnswerCounter
from actvec.server.calls.bearer import Tokens
from actvec.server.calls.call import REQUEST_ID, Call, CallListener, request_id
from actvec.server.errors import RequestError, UnknownMethodError
from actvec.server.status import as_status

# Seconds before a call's deadline in which a cancelled call is taken for one that ran into it: the
# caller, whose clock is another, cancels it then.
_CLOCKS_DIFFER = 0.1


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls before the first of their messages is read, and tells of all of them.

    gRPC reads the message of a unary call before it runs the handler. Here every handler takes a
    stream of messages (on the wire there is no difference), so that a caller without a token costs
    no more than its headers.

    Args:
        tokens: Who may call.
        listeners: Who is told of calls, refused ones included.
    """

    def __init__(self, tokens: Tokens, listeners: Sequence[CallListener]) -> None:
        self._tokens = tokens
        self._listeners = listeners

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a call, wrapped; also where the server has no such method."""
        details = handler_call_details
        found = await continuation(details)
        handler = found or _unknown(details.method)
        behaviour = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )

        async def start(requests: AsyncIterator[Any], context: Any) -> Any:
            self._tokens.check(details.method, details.invocation_metadata)
            request = requests if handler.request_streaming else await _first(requests)
            return behaviour(request, context)

        async def answer(requests: AsyncIterator[Any], context: Any) -> Any:
            async with self._told_of(details, context, known=bool(found)) as count:
                response = await (await start(requests, context))
                count(response)
                return response

        async def answer_stream(requests: AsyncIterator[Any], context: Any) -> None:
            async with self._told_of(details, context, known=bool(found)) as count:
                responses = await start(requests, context)
                if inspect.isawaitable(responses):
                    # It writes by itself, as the watching of health does.
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        await context.write(response)
                        count(response)

        kind: Any = grpc.stream_unary_rpc_method_handler
        if handler.response_streaming:
            kind = grpc.stream_stream_rpc_method_handler
        return kind(
            answer_stream if handler.response_streaming else answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    @asynccontextmanager
    async def _told_of(
        self, details: grpc.HandlerCallDetails, context: Any, *, known: bool
    ) -> AsyncIterator[Callable[[object], None]]:
        """Tell the listeners of a call; gives what counts its responses."""
        identifier = request_id(details.invocation_metadata)
        call = Call(identifier, details.method, known, unquote(context.peer()))
        counter = AnswerCounter()

        def count(response: object) -> None:
            answers = counter.count(response)
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
                yield count
            code = context.code() or grpc.StatusCode.OK
        except grpc.aio.AbortError:
            code = context.code()
            raise
        finally:
            call.end(code or _code_of_cut(context))
            for listener in self._listeners:
                listener.ended(call)


def _code_of_cut(context: Any) -> grpc.StatusCode:
    """How a call ended that its caller ended, or whose connection broke."""
    remaining = context.time_remaining()
    if remaining is not None and remaining < _CLOCKS_DIFFER:
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return grpc.StatusCode.CANCELLED


async def _first(requests: AsyncIterator[Any]) -> Any:
    """The one message of a unary call."""
    request = await anext(requests, None)
    if request is None:
        raise RequestError("request", "is missing: the call ended without a message")
    return request


def _unknown(method: str) -> Any:
    async def refuse(_requests: Any, _context: Any) -> None:
        raise UnknownMethodError(method)

    return grpc.stream_unary_rpc_method_handler(refuse)
