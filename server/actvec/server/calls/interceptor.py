"""One interceptor around every call, of our service and of health and reflection alike."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc

from actvec.server.calls.bearer import Tokens
from actvec.server.errors import RequestError, UnknownMethodError
from actvec.server.status import as_status


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Refuses a call before the first of its messages is read.

    gRPC reads the message of a unary call before it runs the handler. Here every handler takes a
    stream of messages (on the wire there is no difference), so that a caller without a token costs
    no more than its headers.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a call, wrapped; also where the server has no such method."""
        details = handler_call_details
        handler = await continuation(details) or _unknown(details.method)
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
            async with as_status(context):
                return await (await start(requests, context))

        async def answer_stream(requests: AsyncIterator[Any], context: Any) -> None:
            async with as_status(context):
                responses = await start(requests, context)
                if inspect.isawaitable(responses):
                    # It writes by itself, as the watching of health does.
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        await context.write(response)

        kind: Any = grpc.stream_unary_rpc_method_handler
        if handler.response_streaming:
            kind = grpc.stream_stream_rpc_method_handler
        return kind(
            answer_stream if handler.response_streaming else answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


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
