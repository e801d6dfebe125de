"""Threads that wait for each other in every operation have a processor each."""

import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from actvec.server.program.processors import spread_out

PROCESSORS = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []

pytestmark = pytest.mark.skipif(len(PROCESSORS) < 2, reason="one processor, or not Linux")


def processors_of(process: int) -> dict[int, set[int]]:
    """The processors on which each thread of a process may run."""
    threads = [int(entry.name) for entry in Path(f"/proc/{process}/task").iterdir()]
    return {thread: os.sched_getaffinity(thread) for thread in threads}


def alone(masks: Iterable[set[int]]) -> list[int]:
    """The processors of threads that have only one, in order."""
    return sorted(processor for mask in masks if len(mask) == 1 for processor in mask)


@pytest.fixture
def bound():
    """Spread out a new thread with a team; return the processors with a thread of their own."""
    size_before = torch.get_num_threads()

    def spread(size: int) -> list[int]:
        def spread_in_thread() -> dict[int, set[int]]:
            torch.set_num_threads(size)
            spread_out()
            return processors_of(os.getpid())

        before = processors_of(os.getpid())
        with ThreadPoolExecutor(1) as engine:
            found = engine.submit(spread_in_thread).result()
        return alone([found[thread] for thread in found.keys() - before])

    yield spread
    torch.set_num_threads(size_before)


def test_each_thread_gets_a_processor(bound):
    assert bound(len(PROCESSORS)) == PROCESSORS


def test_smaller_team_is_left_to_the_scheduler(bound):
    assert bound(len(PROCESSORS) - 1) == []


def test_environment_decides_first(bound, monkeypatch):
    monkeypatch.setenv("OMP_PROC_BIND", "false")
    assert bound(len(PROCESSORS)) == []


def test_other_threads_of_a_server_stay_free(start_server):
    program = f"""
import torch
from actvec.server.program.main import main
torch.set_num_threads({len(PROCESSORS)})
main()
"""
    masks = processors_of(start_server("--model=demo", program=program).process.pid).values()
    assert alone(masks) == PROCESSORS
    assert set(PROCESSORS) in masks
