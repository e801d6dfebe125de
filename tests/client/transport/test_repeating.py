"""Calls that are resent after a break: never one that may have been done already."""

import grpc
import pytest

from actvec.client import ServerUnavailable
from actvec.v1 import service_pb2_grpc
from tests.client.answering import client_of


class BreakingService(service_pb2_grpc.ActivationVectorServiceServicer):
    """Does as asked, and breaks before it answers."""

    def __init__(self):
        self.calls = []

    async def _break(self, name, context):
        self.calls.append(name)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")

    async def DeleteCorpusMean(self, _request, context):  # noqa: N802 - the contract's name
        await self._break("delete", context)

    async def GetCorpusMean(self, _request, context):  # noqa: N802
        await self._break("get", context)


@pytest.fixture
async def breaking():
    """A service that breaks, and a client of it."""
    service = BreakingService()
    async with client_of(service, timeout=20) as client:
        yield service, client


async def test_deletion_is_sent_once(breaking):
    service, client = breaking
    with pytest.raises(ServerUnavailable):
        await client.delete_mean("mean")
    assert service.calls == ["delete"]


async def test_question_is_sent_again(breaking):
    service, client = breaking
    with pytest.raises(ServerUnavailable):
        await client.get_mean("mean")
    assert len(service.calls) > 1
