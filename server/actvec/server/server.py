"""The server's life: a model, a port, health, reflection, and an orderly end."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from transformers.utils.logging import disable_progress_bar

from actvec.server.boundary import service_handler
from actvec.server.calls.access import Access
from actvec.server.calls.interceptor import CallInterceptor
from actvec.server.config import ModelOptions, ServerConfig
from actvec.server.engine import Engine, PackedEngine, warm_up
from actvec.server.errors import StartupError
from actvec.server.extractor import Extractor
from actvec.server.means.jobs import Jobs
from actvec.server.means.store import MeanStore
from actvec.server.model import RESID_POST, LoadedModel, load_model
from actvec.server.service import ActivationVectorService
from actvec.server.tokens import Tokenizer
from actvec.v1 import service_pb2

log = logging.getLogger(__name__)

SERVICE = service_pb2.DESCRIPTOR.services_by_name["ActivationVectorService"]


def load_engine(options: ModelOptions) -> tuple[Engine, LoadedModel]:
    """Load the model and run one token through the engine, so that what is wrong shows now.

    Raises:
        StartupError: the model or an option is not usable.
    """
    lens = options.engine == "lens"
    if options.hook != RESID_POST and not lens:
        raise StartupError(f"--hook {options.hook} needs --engine lens")
    loaded = load_model(
        options.model,
        revision=options.revision,
        layers=options.layers,
        dtype=options.dtype,
        device=options.device,
        hook=options.hook,
        whole=lens,
    )
    engine: Engine
    if lens:
        from actvec.server.lens import LensEngine  # noqa: PLC0415 - only where it is asked for

        engine = LensEngine(loaded)
    else:
        engine = PackedEngine(loaded)
    warm_up(engine)
    return engine, loaded


@dataclass
class Server:
    """A running server. `Server.start` makes one, `stop` ends it."""

    port: int
    _access: Access
    _grpc: grpc.aio.Server
    _health: health.aio.HealthServicer
    _service: ActivationVectorService

    @classmethod
    async def start(cls, config: ServerConfig, engine: Engine, loaded: LoadedModel) -> "Server":
        """Listen and serve; health is SERVING when this returns.

        Raises:
            StartupError: the address cannot be listened on, or a file of the options not be used.
        """
        access = Access.of(config)
        tokenizer = Tokenizer(loaded.tokenizer, engine.card.context)
        extractor = Extractor(engine, tokenizer, config.limits)
        try:
            store = MeanStore(config.data_dir / "means")
        except OSError as error:
            raise StartupError(f"cannot use --data-dir {config.data_dir}: {error}") from error
        jobs = Jobs(config.data_dir / "jobs", extractor)
        service = ActivationVectorService(engine, extractor, store, jobs)
        server = grpc.aio.server(
            interceptors=[CallInterceptor(access.tokens)],
            options=[
                # A second server on the same port is an error, not a silent sharing of calls.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", config.limits.message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                # Clients ping every 30 s; the default minimum of 5 minutes would cut them off.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
            ],
        )
        server.add_generic_rpc_handlers((service_handler(service, SERVICE),))
        health_servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        _add_reflection(server)
        address = config.address(config.port)
        try:
            if access.tls is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, access.tls.credentials())
        except RuntimeError as error:
            raise StartupError(
                f"cannot listen on {address}: is another program using it? "
                "Choose another --port, or 0 for a free one"
            ) from error
        if not config.is_loopback and access.tls is None:
            log.warning(
                "texts and tokens travel to %s in the clear: give --tls-cert and --tls-key, unless "
                "a proxy in front of this server encrypts",
                config.host,
            )
        extractor.start()
        await server.start()
        for name in ("", SERVICE.full_name):
            await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        return cls(port, access, server, health_servicer, service)

    def reload(self) -> None:
        """Read tokens and certificates again; what cannot be used is logged and left as it was."""
        self._access.reload()

    async def stop(self, grace: float) -> None:
        """Drain: say NOT_SERVING, finish what was accepted within `grace` seconds, end the engine.

        The engine goes last: calls in flight need it.
        """
        await self._health.enter_graceful_shutdown()
        self._service.refuse()
        await self._grpc.stop(grace)
        await self._service.drain()

    async def wait(self) -> None:
        """Return when the server has stopped."""
        await self._grpc.wait_for_termination()


def _add_reflection(server: grpc.aio.Server) -> None:
    """Server reflection v1alpha and v1, which differ in their names alone."""
    names = [SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": handler}),)
    )


_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


async def serve(
    config: ServerConfig, stop: asyncio.Event, started: Callable[[Server], None] = lambda _: None
) -> None:
    """Load, serve, and drain once `stop` is set.

    Args:
        config: What to serve, and how.
        stop: Set to end the server.
        started: Called with the server once it serves.

    Raises:
        StartupError: an option is not usable.
    """
    # The bar of transformers' loading says nothing in a log; the hub's own, of a download, does.
    disable_progress_bar()
    engine, loaded = load_engine(config.model)
    server = await Server.start(config, engine, loaded)
    started(server)
    # One line on standard output, for people and for programs that started us.
    print(f"actvec-server ready on {config.address(server.port)}", flush=True)
    await stop.wait()
    await server.stop(config.grace)
