"""The boundary between gRPC and the service: bytes become checked messages, errors become statuses.

grpc answers bytes that do not parse with INTERNAL and no reason. Here they are INVALID_ARGUMENT
and, for a string that is not UTF-8, name the field. Methods that a service does not have are left
to grpc, which answers UNIMPLEMENTED.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import (
    Descriptor,
    FieldDescriptor,
    FileDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.message import DecodeError, Message

from actvec.server.errors import RequestError
from actvec.server.status import as_status


def service_handler(service: object, descriptor: ServiceDescriptor) -> grpc.GenericRpcHandler:
    """The handlers of a service's methods, looked up by their names in the contract.

    A unary method is `async def (request) -> response`; where requests stream, it is given an async
    iterator of them; where responses stream, it is an async generator.
    """
    explain = _Explainer(descriptor.file)
    handlers = {
        method.name: _handler(getattr(service, method.name), method, explain)
        for method in descriptor.methods
        if hasattr(service, method.name)
    }
    return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)


def _handler(
    behaviour: Callable[[Any], Any], method: MethodDescriptor, explain: "_Explainer"
) -> "grpc.RpcMethodHandler[Any, Any]":
    message = message_factory.GetMessageClass(method.input_type)

    def decode(raw: bytes) -> Message | RequestError:
        try:
            return message.FromString(raw)
        except DecodeError:
            return explain(raw, method.input_type)

    argument = _each_checked if method.client_streaming else _checked

    async def answer(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
        async with as_status(context):
            return await behaviour(argument(request))

    async def answer_stream(
        request: Any, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[Any]:
        # Closed at once when the call ends early, not when garbage is collected.
        async with as_status(context), aclosing(behaviour(argument(request))) as responses:
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
        request_deserializer=decode,
        response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
    )


def _checked(request: Any) -> Any:
    if isinstance(request, RequestError):
        raise request
    return request


async def _each_checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)


class _Explainer:
    """Says what is wrong with bytes that are not a message.

    It parses them once more with twins of our messages whose strings are bytes, and looks for the
    one that is not UTF-8.
    """

    def __init__(self, file: FileDescriptor) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        self._add(file)

    def __call__(self, raw: bytes, descriptor: Descriptor) -> RequestError:
        twin = message_factory.GetMessageClass(
            self._pool.FindMessageTypeByName(descriptor.full_name)
        )
        try:
            path = _not_utf8(twin.FromString(raw), descriptor)
        except DecodeError:
            path = None
        if path is None:
            return RequestError("request", f"is not a {descriptor.full_name} message")
        return RequestError(path, "is not UTF-8; texts and names are sent as UTF-8")

    def _add(self, file: FileDescriptor) -> None:
        for dependency in file.dependencies:
            self._add(dependency)
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)
        for message in proto.message_type:
            for field in message.field:
                if field.type == FieldDescriptor.TYPE_STRING:
                    field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
        self._pool.Add(proto)


def _not_utf8(twin: Message, descriptor: Descriptor) -> str | None:
    """The path, for example `documents[3].text`, of the first string that is not UTF-8."""
    for field, value in twin.ListFields():
        original = descriptor.fields_by_name[field.name]
        for index, item in enumerate(value if original.is_repeated else [value]):
            path = f"{field.name}[{index}]" if original.is_repeated else field.name
            if original.message_type is not None:
                inner = _not_utf8(item, original.message_type)
                if inner is not None:
                    return f"{path}.{inner}"
            elif original.type == FieldDescriptor.TYPE_STRING and not _is_utf8(item):
                return path
    return None


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
