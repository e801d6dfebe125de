"""What answers cost the heap: protobuf trims it after each 10,000 pieces of memory it freed."""

import ctypes
import mmap

import pytest

from actvec.v1.vectors_pb2 import DocumentResult, StreamVectorsRequest
from tests.server.calling import opened

TRIM_AFTER = 10_000

_BLOCK = 1 << 16


class Freed:
    """Free memory in the middle of the heap, which stays there until somebody trims the heap.

    Others may take blocks of it meanwhile, so there are some more.
    """

    def __init__(self) -> None:
        self._c = ctypes.CDLL(None)
        self._c.malloc.restype = ctypes.c_void_p
        blocks = [self._c.malloc(_BLOCK) for _ in range(65)]
        for block in blocks:
            ctypes.memset(block, 1, _BLOCK)
        # Every second one stays, so that the others are not joined to the top of the heap.
        for block in blocks[1::2]:
            self._c.free(ctypes.c_void_p(block))
        self._held = blocks[::2]
        page = mmap.PAGESIZE
        self._pages = [(block + _BLOCK // 2) // page * page for block in blocks[1::2]]

    def trimmed(self) -> bool:
        """Whether the heap was trimmed since; if so, release the memory."""
        state = ctypes.c_ubyte()
        for page in self._pages:
            failed = self._c.mincore(
                ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), ctypes.byref(state)
            )
            assert not failed
            if not state.value & 1:
                self._release()
                return True
        return False

    def _release(self) -> None:
        for block in self._held:
            self._c.free(ctypes.c_void_p(block))
        self._held = []


async def test_failing_documents_trim_no_heap(serve, monkeypatch):
    """A trim stops all threads; a flood of empty documents made one per 2,500 of them."""
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("needs glibc, whose heap protobuf trims")
    monkeypatch.setattr("actvec.server.heap._GROWN", 1 << 60)
    message = StreamVectorsRequest.FromString(b"\x12\x00" * 500)
    async with serve() as (_, stub):
        call = await opened(stub)
        freed = Freed()
        for _ in range(TRIM_AFTER):
            DocumentResult()
            if freed.trimmed():
                break
        else:
            pytest.fail("protobuf no longer trims the heap: simplify VectorsCall._finish")
        freed = Freed()
        failed = 0
        while failed <= TRIM_AFTER:
            await call.write(message)
            answered = 0
            while answered < len(message.documents):
                results = (await call.read()).results
                assert results[0].error.field == "text"
                answered += len(results)
            failed += answered
        assert not freed.trimmed()
        call.cancel()
