"""Traces of calls, if a collector is named."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from actvec.server.errors import StartupError
from actvec.v1.vectors_pb2 import ExtractVectorRequest
from tests.server.calling import SERVICE, error_of, read_all, some_documents


@contextmanager
def collector() -> Iterator[tuple[str, list[object]]]:
    """An OTLP collector over HTTP; its address, and the spans that it received."""
    spans: list[object] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", spans
        server.shutdown()
        thread.join()


async def test_calls_are_traced_with_a_collector(serve, monkeypatch):
    with collector() as (address, spans):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        async with serve() as (server, stub):
            await read_all(stub.StreamVectors(iter([some_documents("one")])))
            await error_of(stub.ExtractVector(ExtractVectorRequest()))
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                await channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
    codes = {
        span.name: {a.key: a.value.int_value for a in span.attributes}["rpc.grpc.status_code"]
        for span in spans
    }
    assert codes == {f"{SERVICE}/StreamVectors": 0, f"{SERVICE}/ExtractVector": 3}


async def test_missing_trace_packages_are_named(serve, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.grpc", None)
    with pytest.raises(StartupError, match=r"pip install 'actvec\[otel\]'"):
        async with serve():
            pass
