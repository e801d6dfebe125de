"""Transfers of mean files: in pieces, and one whole file at a time."""

import asyncio
import hashlib
import os
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from safetensors.numpy import save

from actvec.server.config import AccessOptions
from actvec.server.errors import StorageError
from actvec.server.means import transfers
from actvec.server.means.store import MeanStore
from actvec.server.model.demo import WIDTH
from actvec.v1.means_pb2 import (
    DeleteCorpusMeanRequest,
    DownloadCorpusMeanRequest,
    MergeCorpusMeansRequest,
    UploadCorpusMeanRequest,
)
from tests.server.calling import bearer, error_of, mean_file, upload_messages
from tests.waiting import eventually


@pytest.fixture
def looked_up(monkeypatch):
    """The number of times that the store was asked for records."""
    times = []

    def noted(method):
        real = getattr(MeanStore, method)
        monkeypatch.setattr(MeanStore, method, lambda *a: times.append(method) or real(*a))

    noted("find")
    noted("records")
    return times


def summed_file(value: int) -> bytes:
    """A mean of one document that can be merged."""
    states = np.full((3, WIDTH), value, dtype=np.float64)
    return save(
        {
            "corpus_mean": np.ascontiguousarray(states.T.astype(np.float32)),
            "counts": np.ones(3, dtype=np.int64),
            "sums": states,
        }
    )


@pytest.mark.parametrize(
    ("means", "message"),
    [
        (["a"] * 900, "two or more different"),
        (["a"], "two or more"),
        ([], "two or more"),
        ([f"m{n}" for n in range(1001)], "are 1001; merge at most 1000"),
    ],
    ids=["repeated", "alone", "none", "many"],
)
async def test_merge_is_checked_before_any_look(serve, looked_up, means, message):
    async with serve() as (_, stub):
        request = MergeCorpusMeansRequest(name="all", corpus_means=means)
        error = await error_of(stub.MergeCorpusMeans(request))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in error.details()
    assert not looked_up


async def test_merge_looks_at_the_store_once(serve, looked_up):
    async with serve() as (_, stub):
        ids = []
        for value in range(1, 6):
            messages = upload_messages(summed_file(value), f"m{value}")
            ids.append((await stub.UploadCorpusMean(messages)).corpus_mean.id)
        looked_up.clear()
        request = MergeCorpusMeansRequest(name="all", corpus_means=[*ids[:3], "m4", "m5"])
        assert (await stub.MergeCorpusMeans(request)).corpus_mean.documents == 5
        assert len(looked_up) == 1
        # One mean under two names is one mean twice.
        request = MergeCorpusMeansRequest(name="more", corpus_means=[ids[0], "m1"])
        assert "two or more different" in (await error_of(stub.MergeCorpusMeans(request))).details()
        request = MergeCorpusMeansRequest(name="more", corpus_means=[ids[0], "nobody's"])
        assert (await error_of(stub.MergeCorpusMeans(request))).code() is grpc.StatusCode.NOT_FOUND


async def test_a_download_comes_in_pieces(serve, monkeypatch):
    monkeypatch.setattr(transfers, "PIECE_BYTES", 1000)
    monkeypatch.setattr("actvec.server.service.mean_methods.PIECE_BYTES", 1000)
    content = mean_file(positions=9)
    async with serve() as (_, stub):
        record = (await stub.UploadCorpusMean(upload_messages(content))).corpus_mean
        call = stub.DownloadCorpusMean(DownloadCorpusMeanRequest(corpus_mean=record.id))
        parts = [part async for part in call]
    assert parts[0].corpus_mean == record
    assert b"".join(part.chunk for part in parts[1:]) == content
    assert {len(part.chunk) for part in parts[1:-1]} == {1000}


def open_files() -> list[str]:
    return [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]


async def test_unread_downloads_hold_a_piece_each(serve, monkeypatch):
    """No file is read ahead of its reader, nor kept open for it."""
    read = []
    read_piece = transfers.read_piece
    monkeypatch.setattr(
        "actvec.server.service.mean_methods.read_piece",
        lambda *a: read.append(a[-1]) or read_piece(*a),
    )
    mean = np.ones((WIDTH, 1 << 16), dtype=np.float32)
    content = save({"corpus_mean": mean})
    assert len(content) > 30 * transfers.PIECE_BYTES
    async with serve() as (_, stub):
        record = (await stub.UploadCorpusMean(_pieces(content))).corpus_mean
        calls = [
            stub.DownloadCorpusMean(DownloadCorpusMeanRequest(corpus_mean=record.id))
            for _ in range(4)
        ]
        for call in calls:
            assert (await call.read()).HasField("corpus_mean")
        await eventually(lambda: len(read) >= 4)
        # It is open while a piece is read.
        await eventually(lambda: not any(record.id in file for file in open_files()))
        await asyncio.sleep(0.05)
        assert max(read) <= 16 * transfers.PIECE_BYTES
        for call in calls:
            call.cancel()


def _pieces(content: bytes):
    first, _ = upload_messages(content)
    yield first
    for start in range(0, len(content), 1 << 20):
        yield type(first)(chunk=content[start : start + (1 << 20)])


async def test_mean_deleted_in_mid_download_is_reported(serve, monkeypatch):
    monkeypatch.setattr(transfers, "PIECE_BYTES", 1000)
    monkeypatch.setattr("actvec.server.service.mean_methods.PIECE_BYTES", 1000)
    read_piece = transfers.read_piece

    def slow(path, record, start):
        while start and path.exists():
            threading.Event().wait(0.01)
        return read_piece(path, record, start)

    monkeypatch.setattr("actvec.server.service.mean_methods.read_piece", slow)
    async with serve() as (_, stub):
        await stub.UploadCorpusMean(upload_messages(mean_file(positions=9)))
        call = stub.DownloadCorpusMean(DownloadCorpusMeanRequest(corpus_mean="m"))
        await call.read()
        await stub.DeleteCorpusMean(DeleteCorpusMeanRequest(corpus_mean="m"))
        error = await error_of(call)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "deleted while it was downloaded" in error.details()


async def test_a_damaged_mean_is_not_downloaded(serve, tmp_path):
    async with serve() as (_, stub):
        record = (await stub.UploadCorpusMean(upload_messages(mean_file()))).corpus_mean
        file = tmp_path / "means" / f"{record.id}.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        call = stub.DownloadCorpusMean(DownloadCorpusMeanRequest(corpus_mean="m"))
        assert (await error_of(call)).code() is grpc.StatusCode.DATA_LOSS


async def test_uploads_are_checked_one_at_a_time(serve, monkeypatch, tmp_path):
    at_once, most = 0, 0
    upload = MeanStore.upload

    def counted(self, *args):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        threading.Event().wait(0.02)
        try:
            return upload(self, *args)
        finally:
            at_once -= 1

    monkeypatch.setattr(MeanStore, "upload", counted)
    async with serve() as (_, stub):
        await asyncio.gather(
            *(
                stub.UploadCorpusMean(upload_messages(summed_file(value), f"m{value}"))
                for value in range(1, 6)
            )
        )
        assert most == 1
        assert not list((tmp_path / "means").glob(".partial-*"))


async def test_running_uploads_count_for_the_store(serve, tmp_path):
    content = mean_file()
    async with serve(store_bytes=len(content) + 100) as (_, stub):
        first = stub.UploadCorpusMean()
        announced, chunk = upload_messages(content)
        await first.write(announced)
        await eventually(lambda: list((tmp_path / "means").glob(".partial-*")))
        other = mean_file(positions=3)

        async def refused():
            error = await error_of(stub.UploadCorpusMean(upload_messages(other, "other")))
            return error.details()

        assert "the store of means holds 0 bytes" in await refused()
        await first.write(chunk)
        await first.done_writing()
        assert (await first).corpus_mean.sha256 == hashlib.sha256(content).hexdigest()


@pytest.fixture
def two_callers(tmp_path):
    """Who may call, and what each of two callers sends along."""
    tokens = tmp_path / "tokens"
    tokens.write_text("of-a\nof-b\n")
    sent = [{"metadata": bearer(f"of-{name}")} for name in "ab"]
    return AccessOptions(token_file=tokens), *sent


async def begun(uploads, stub, content, arrived, **caller):
    """An upload whose first bytes have arrived."""
    before = uploads._arrived.total()
    call = stub.UploadCorpusMean(**caller)
    announced, _ = upload_messages(content)
    await call.write(announced)
    await call.write(UploadCorpusMeanRequest(chunk=content[:arrived]))
    await eventually(lambda: uploads._arrived.total() == before + arrived)
    return call


async def test_announced_uploads_keep_no_other_caller_out(serve, two_callers):
    """What has arrived does, and the store never exceeds its limit."""
    access, a, b = two_callers
    content, other = mean_file(4), mean_file(3)
    async with serve(access=access, store_bytes=len(content) + 100) as (server, stub):
        uploads = server._service._uploads
        first = await begun(uploads, stub, content, len(content) - 1, **a)
        refused = await error_of(stub.UploadCorpusMean(upload_messages(other), **b))
        assert "the store of means holds 0 bytes" in refused.details()
        first.cancel()
        await eventually(lambda: not uploads._arrived)
        first = await begun(uploads, stub, content, 1, **a)
        await stub.UploadCorpusMean(upload_messages(other), **b)
        await first.write(UploadCorpusMeanRequest(chunk=content[1:]))
        await first.done_writing()
        too_late = (await error_of(first)).details()
        assert f"the store of means holds {len(other)} bytes" in too_late
        assert not uploads._announced
        assert not uploads._arrived


async def test_of_two_uploads_without_room_one_goes_on(serve, two_callers):
    access, a, b = two_callers
    content, other = mean_file(4), mean_file(3)
    async with serve(access=access, store_bytes=len(content) + 100) as (server, stub):
        uploads = server._service._uploads
        first = await begun(uploads, stub, content, 100, **a)
        second = await begun(uploads, stub, other, 1, **b)
        await first.write(UploadCorpusMeanRequest(chunk=content[100:-1]))
        await eventually(lambda: uploads._arrived.total() == len(content))
        await second.write(UploadCorpusMeanRequest(chunk=other[1:]))
        refused = await error_of(second)
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "other uploads have taken what this one needs" in refused.details()
        await first.write(UploadCorpusMeanRequest(chunk=content[-1:]))
        await first.done_writing()
        assert (await first).corpus_mean.size_bytes == len(content)


def test_late_piece_brings_no_file_back(tmp_path):
    """A thread may still be at it when the upload was cancelled, and its file removed."""
    with transfers.arriving(tmp_path, "m", 8, "0" * 64) as file:
        file.write(b"some")
    with pytest.raises(StorageError):
        file.write(b"more")
    assert not list(tmp_path.iterdir())
