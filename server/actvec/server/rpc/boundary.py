"""The boundary between gRPC and the service: bytes become checked messages, errors become statuses.

grpc would parse messages of any size on the event loop, and answer bytes that do not parse with
INTERNAL and no reason. Here it hands over the bytes, and `decoding` makes messages of them. For
methods that a service does not have, grpc answers UNIMPLEMENTED.
"""

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from actvec.server.rpc.decoding import Decoder
from actvec.server.rpc.status import as_status


def service_handler(
    service: object, descriptor: ServiceDescriptor, most_documents: int
) -> grpc.GenericRpcHandler:
    """The handlers of a service's methods, looked up by their names in the contract.

    A unary method is `async def (request) -> response`. If requests stream, it gets an async
    iterator of them; where responses stream, it is an async generator.

    Args:
        service: Has the methods.
        descriptor: Its contract.
        most_documents: Documents that one message may hold.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="actvec-decoder")
    handlers = {
        method.name: _handler(
            getattr(service, method.name),
            method,
            Decoder(method.input_type, most_documents, thread),
        )
        for method in descriptor.methods
        if hasattr(service, method.name)
    }
    return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)


def _handler(
    behavior: Callable[[Any], Any], method: MethodDescriptor, decoder: Decoder
) -> "grpc.RpcMethodHandler[Any, Any]":
    async def argument(request: Any) -> Any:
        return decoder.messages(request) if method.client_streaming else await decoder.one(request)

    async def answer(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
        async with as_status(context):
            return await behavior(await argument(request))

    async def answer_stream(
        request: Any, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[Any]:
        # Closed at once when the call ends early, not when garbage is collected.
        async with as_status(context), aclosing(behavior(await argument(request))) as responses:
            async for response in responses:
                yield response

    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    kind: Any = kinds[method.client_streaming, method.server_streaming]
    return kind(  # type: ignore[no-any-return]
        answer_stream if method.server_streaming else answer,
        request_deserializer=None,
        response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
    )
