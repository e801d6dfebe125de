"""Traces of calls for OpenTelemetry, if its own environment variables name a collector."""

import os
from typing import Any

import grpc

from actvec.server.errors import StartupError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Traces:
    """A span for each call of the service, exported over HTTP in batches.

    OpenTelemetry's variables set the rest: `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, and so on.

    Args:
        service: Full name of the service whose calls are traced.

    Raises:
        StartupError: a collector is named and OpenTelemetry is not installed.
    """

    def __init__(self, service: str) -> None:
        self.interceptors: list[grpc.aio.ServerInterceptor] = []
        self._provider: Any = None
        if not any(map(os.environ.get, _ENDPOINTS)):
            return
        try:
            # Imported only on request: it is an extra, and not a small one.
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
                OTLPSpanExporter,
            )
            from opentelemetry.instrumentation.grpc import (  # noqa: PLC0415
                aio_server_interceptor,
                filters,
            )
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise StartupError(
                f"{_ENDPOINTS[0]} is set, but {error.name} is not installed: pip install "
                "'actvec[otel]'"
            ) from error
        name = os.environ.get("OTEL_SERVICE_NAME", "actvec-server")
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.interceptors.append(
            aio_server_interceptor(self._provider, filter_=filters.service_name(service))
        )

    def close(self) -> None:
        """Export the remaining spans."""
        if self._provider is not None:
            self._provider.shutdown()
