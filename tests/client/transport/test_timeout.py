"""A timeout is that of a whole method, over all calls that it makes."""

import asyncio

import grpc
import pytest

from actvec.client import DeadlineExceeded, NotFound
from actvec.v1 import means_pb2, model_pb2, service_pb2_grpc
from tests.client.answering import client_of
from tests.clock import CLOCK


class SlowService(service_pb2_grpc.ActivationVectorServiceServicer):
    """Takes time by the clock of the tests for its first answer, and gives no second one.

    Attributes:
        takes: Seconds of the first answer.
        refuses: Whether it refuses the second call, or lets it wait forever.
        left: Seconds that the second call had left when it came, by gRPC's own clock.
    """

    def __init__(self):
        self.takes = 50.0
        self.refuses = True
        self.left = None

    async def GetModelInfo(self, _request, _context):  # noqa: N802 - the contract's name
        CLOCK.advance(self.takes)
        return model_pb2.GetModelInfoResponse()

    async def ExtractVector(self, _request, context):  # noqa: N802
        await self._second(context)

    async def ListCorpusMeans(self, request, context):  # noqa: N802
        if request.page_token:
            await self._second(context)
        CLOCK.advance(self.takes)
        return means_pb2.ListCorpusMeansResponse(next_page_token="more")

    async def _second(self, context):
        self.left = context.time_remaining()
        if self.refuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "refused")
        await asyncio.Event().wait()


@pytest.fixture
async def slow():
    """A service that hangs, and a client of it with a timeout of a minute."""
    service = SlowService()
    async with client_of(service) as client:
        yield service, client


METHODS = {
    "extract": lambda client: client.extract("A text.", mode="short"),
    "list_means": lambda client: client.list_means(),
}


@pytest.mark.parametrize("method", METHODS)
async def test_second_call_has_the_rest_of_the_time(slow, method):
    service, client = slow
    with pytest.raises(NotFound, match="refused"):
        await METHODS[method](client)
    assert service.left <= 10


@pytest.mark.parametrize("method", METHODS)
async def test_server_that_used_all_the_time_gets_no_more(slow, method):
    service, client = slow
    service.takes, service.refuses = 61.0, False
    with pytest.raises(DeadlineExceeded, match="in time: the server is busy"):
        await METHODS[method](client)
