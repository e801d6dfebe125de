"""A full store of means, or disk: one call fails, and leaves nothing behind."""

import errno

import grpc
import pytest

from actvec.v1 import means_pb2
from tests.disk import failing_disk, file_limit
from tests.server.calling import EXHAUSTED, error_of, mean_file, upload_messages


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"upload_bytes": 1000}, "upload.size_bytes: is .*; the limit is 1000 bytes"),
        ({"store_bytes": 1000}, "the store of means holds 0 bytes, its limit is 1000"),
    ],
)
async def test_oversized_upload_is_refused_first(serve, limits, message):
    first, _ = upload_messages(mean_file())
    async with serve(**limits) as (_, stub):
        call = stub.UploadCorpusMean()
        await call.write(first)
        with pytest.raises(grpc.aio.AioRpcError, match=message) as error:
            await call
    assert error.value.code() is EXHAUSTED


async def test_full_store_has_room_after_a_deletion(serve):
    one, two = mean_file(4), mean_file(5)
    async with serve(store_bytes=len(two) + 10) as (_, stub):
        await stub.UploadCorpusMean(upload_messages(one, "one"))
        error = await error_of(stub.UploadCorpusMean(upload_messages(two, "two")))
        assert error.code() is EXHAUSTED
        assert "Delete an unused mean" in error.details()
        # The same content again takes no room.
        await stub.UploadCorpusMean(upload_messages(one, "one"))
        await stub.DeleteCorpusMean(means_pb2.DeleteCorpusMeanRequest(corpus_mean="one"))
        await stub.UploadCorpusMean(upload_messages(two, "two"))
        listed = await stub.ListCorpusMeans(means_pb2.ListCorpusMeansRequest())
    assert [mean.name for mean in listed.corpus_means] == ["two"]


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (errno.ENOSPC, EXHAUSTED, "cannot store mean m: No space left on device"),
        (errno.EROFS, grpc.StatusCode.INTERNAL, "cannot store mean m: Read-only file system"),
    ],
)
async def test_full_disk_fails_one_call(serve, number, code, message):
    async with serve() as (_, stub):
        with failing_disk(number):
            error = await error_of(stub.UploadCorpusMean(upload_messages(mean_file())))
        assert error.code() is code
        assert message in error.details()
        assert not (await stub.ListCorpusMeans(means_pb2.ListCorpusMeansRequest())).corpus_means
        await stub.UploadCorpusMean(upload_messages(mean_file()))
        (mean,) = (await stub.ListCorpusMeans(means_pb2.ListCorpusMeansRequest())).corpus_means
    assert mean.name == "m"


async def test_disk_filling_up_fails_one_upload(serve):
    async with serve() as (_, stub):
        with file_limit(1 << 10):
            error = await error_of(stub.UploadCorpusMean(upload_messages(mean_file())))
        assert error.code() is EXHAUSTED
        assert error.details() == "cannot store mean m: File too large"
        await stub.UploadCorpusMean(upload_messages(mean_file()))
