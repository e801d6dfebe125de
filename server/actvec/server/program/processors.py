"""The processors that an engine's threads run on."""

import ctypes
import logging
import os
import sys
import threading

import torch

log = logging.getLogger(__name__)


def spread_out() -> None:
    """Give each thread that computes for this one, and this one, a processor of its own.

    They wait for each other in every operation, without sleeping. If the scheduler puts two of them
    on one processor, an operation of microseconds takes several milliseconds, a time slice of each,
    for some tenths of a second: that is how long it may take the scheduler to move one of them to
    a processor that works for a thread of low priority.

    Does nothing if there are fewer threads than processors, where the scheduler finds a free one,
    or if the environment says how to bind threads (`OMP_PROC_BIND`).
    """
    if sys.platform != "linux" or "OMP_PROC_BIND" in os.environ:
        return
    processors = sorted(os.sched_getaffinity(0))
    threads = _team()
    if len(threads) == len(processors):
        try:
            for thread, processor in zip(threads, processors, strict=True):
                os.sched_setaffinity(thread, {processor})
        except OSError as error:
            log.warning("the engine's threads may share processors, and be slow: %s", error)


def _team() -> list[int]:
    """The ids of the threads, in the operating system, that OpenMP uses for this thread's work."""
    team: list[int] = []
    join = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: team.append(threading.get_native_id()))
    # What compilers call for `#pragma omp parallel`, in the OpenMP that torch has loaded, if any.
    parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if parallel is not None:
        parallel(join, None, torch.get_num_threads(), 0)
    return team
