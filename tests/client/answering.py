"""Clients of services that tests write themselves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from actvec.client import AsyncClient
from actvec.v1 import service_pb2_grpc


@asynccontextmanager
async def client_of(
    service: service_pb2_grpc.ActivationVectorServiceServicer, **options: Any
) -> AsyncIterator[AsyncClient]:
    """Serve on a free port; provide a client with these options."""
    server = grpc.aio.server()
    service_pb2_grpc.add_ActivationVectorServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with AsyncClient(f"127.0.0.1:{port}", **options) as client:
        yield client
    await server.stop(None)
