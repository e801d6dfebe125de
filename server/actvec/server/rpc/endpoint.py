"""The gRPC side of a server: a port, the service behind it, health and reflection."""

import logging
from collections.abc import Sequence

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from actvec.server.access.access import Access
from actvec.server.config import ServerConfig
from actvec.server.errors import StartupError
from actvec.server.rpc.boundary import service_handler
from actvec.server.rpc.open_files import allow_connections

log = logging.getLogger(__name__)

_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


class Endpoint:
    """A port that calls come through.

    Attributes:
        port: Its number.

    Raises:
        StartupError: the address cannot be listened on, or so many connections not be held.
    """

    def __init__(
        self,
        config: ServerConfig,
        access: Access,
        service: object,
        descriptor: ServiceDescriptor,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
    ) -> None:
        self._names = ("", descriptor.full_name)
        self._server = grpc.aio.server(interceptors=interceptors, options=_options(config))
        handler = service_handler(service, descriptor, config.limits.message_documents)
        self._server.add_generic_rpc_handlers((handler,))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        _add_reflection(
            self._server, [descriptor.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME]
        )
        self.port = self._bind(config, access)

    async def open(self) -> None:
        """Serve; health is SERVING when this returns."""
        await self._server.start()
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def retire(self) -> None:
        """Say NOT_SERVING, for good; calls are still answered."""
        await self._health.enter_graceful_shutdown()

    async def close(self, grace: float) -> None:
        """Take no more calls; those in flight have `grace` seconds to finish."""
        await self._server.stop(grace)

    def _bind(self, config: ServerConfig, access: Access) -> int:
        address = config.address(config.port)
        try:
            if access.tls is not None:
                return self._server.add_secure_port(address, access.tls.credentials())
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartupError(
                f"cannot listen on {address}: another program may be using it", setting="port"
            ) from error
        if not config.is_loopback:
            log.warning(
                (
                    "texts and tokens travel to %s unencrypted, because this server has no "
                    "certificate: let a proxy in front of it encrypt"
                ),
                address,
            )
        return port


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    limits = config.limits
    return [
        # A second server on the same port is an error, not a silent sharing of calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_allowed_incoming_connections", allow_connections(limits.connections)),
        # How long a connection has to complete its handshake, and then to make a call: a silent
        # one takes a place that others need.
        ("grpc.server_handshake_timeout_ms", _milliseconds(limits.silent_seconds)),
        ("grpc.max_connection_idle_ms", _milliseconds(limits.silent_seconds)),
        # Further calls wait on the client's side.
        ("grpc.max_concurrent_streams", limits.calls),
        # Calls that run are finished, however long they take.
        ("grpc.max_connection_age_ms", _milliseconds(limits.connection_seconds)),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Clients ping every 30 s; the default minimum of 5 minutes would cut them off.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
    ]


def _milliseconds(seconds: float) -> int:
    """Milliseconds for gRPC; it treats the largest 32-bit number as no limit."""
    return min(int(1000 * seconds), 2**31 - 1)


def _add_reflection(server: grpc.aio.Server, names: Sequence[str]) -> None:
    """Server reflection v1alpha and v1, which differ in their names alone."""
    reflection.enable_server_reflection(names, server)
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": handler}),)
    )
