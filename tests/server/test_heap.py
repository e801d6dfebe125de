"""Freed memory stays for the next step, and goes back to the system when calls are over."""

import asyncio
import platform
import threading

import numpy as np
import pytest

from actvec.server.heap import Tidying, give_back_memory, keep_freed_memory, resident_bytes
from tests.clock import CLOCK

MIB = 1 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators decide themselves")
def test_freed_memory_is_given_back():
    keep_freed_memory()
    before = resident_bytes()
    block = np.ones(64 << 20, dtype=np.uint8)
    del block
    assert resident_bytes() - before > 32 << 20
    give_back_memory()
    assert resident_bytes() - before < 32 << 20


class Process:
    """A process by its figures: what it has from the system, and what its calls hold."""

    def __init__(self) -> None:
        self.resident = self.needed = 500 * MIB
        self.held = 0
        self.threads: list[threading.Thread] = []
        self.tidying = Tidying(lambda: self.held, self.tidy, lambda: self.resident)

    def tidy(self) -> None:
        self.threads.append(threading.current_thread())
        self.resident = self.needed

    async def is_tidied(self) -> bool:
        before = len(self.threads)
        await self.tidying.look()
        return len(self.threads) > before


async def test_growth_goes_back_once():
    process = Process()
    assert not await process.is_tidied()
    process.resident += 15 * MIB
    assert not await process.is_tidied()
    process.resident += MIB
    assert await process.is_tidied()
    assert not await process.is_tidied()
    # The event loop's thread serves calls.
    assert threading.main_thread() not in process.threads


async def test_needed_memory_is_not_given_back_again():
    process = Process()
    process.resident = process.needed = 600 * MIB
    assert await process.is_tidied()
    assert not await process.is_tidied()
    # Later it needs less, and from there grows again.
    process.resident = process.needed = 550 * MIB
    assert not await process.is_tidied()
    process.resident += 16 * MIB
    assert await process.is_tidied()


async def test_held_memory_is_tidied_each_minute():
    process = Process()
    process.held = 1
    process.resident += 64 * MIB
    assert await process.is_tidied()
    process.resident += 64 * MIB
    CLOCK.advance(55)
    assert not await process.is_tidied()
    CLOCK.advance(5)
    assert await process.is_tidied()
    process.resident += 64 * MIB
    process.held = 0
    assert await process.is_tidied()


async def test_it_is_looked_at_until_the_end():
    process = Process()
    looking = asyncio.create_task(process.tidying.run())
    for count in (1, 2):
        process.resident += 16 * MIB
        await CLOCK.run(5, until=lambda count=count: len(process.threads) == count)
    looking.cancel()
