"""Settings that a server refuses: its reason arrives, since nothing else is on its way."""

import asyncio
import logging

import grpc
import pytest

from actvec.client import InvalidArgument
from actvec.v1 import service_pb2_grpc
from actvec.v1.model_pb2 import GetModelInfoResponse
from tests.client.answering import client_of


class RefusingService(service_pb2_grpc.ActivationVectorServiceServicer):
    """Waits for documents before it refuses the settings.

    Attributes:
        sent_early: Whether some came.
    """

    sent_early = False

    async def GetModelInfo(self, _request, _context):  # noqa: N802 - the contract's name
        return GetModelInfoResponse()

    async def StreamVectors(self, requests, context):  # noqa: N802
        await anext(requests)
        documents = asyncio.ensure_future(anext(requests))
        await asyncio.wait({documents}, timeout=0.3)
        self.sent_early = documents.done()
        documents.cancel()
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such pool")
        yield


@pytest.fixture
async def refusing():
    """A service that refuses all settings, and a client of it."""
    service = RefusingService()
    async with client_of(service) as client:
        yield service, client


async def test_documents_wait_for_accepted_settings(refusing, caplog):
    service, client = refusing
    with pytest.raises(InvalidArgument, match="no such pool"), caplog.at_level(logging.WARNING):
        async for _ in client.stream(["a text"] * 100, mode="short"):
            pass
    assert not service.sent_early
    assert caplog.records == []
