"""The memory that a step takes, and how large steps may be for it.

Beside the weights, the packed engine needs memory in proportion to the tokens of a step, however
they are divided into documents: its attention never holds the scores of a whole document. What a
token takes is therefore counted once, on a small step, and holds for all.
"""

import ctypes
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from actvec.server.engine import Engine, PackedEngine
from actvec.server.errors import StartupError
from actvec.server.step import StepDocument

DEFAULT_STEP_TOKENS = {"cpu": 2048, "cuda": 8192}

# What is left for kernels' own buffers, sums of means, and the rest of the program.
_USABLE = 0.8
_COUNTED_TOKENS = 512

_CGROUP = Path("/sys/fs/cgroup")


def keep_freed_memory() -> None:
    """Have glibc keep what a step has freed for the next step; elsewhere, do nothing.

    Left to itself it gives the tensors of a step, of some megabytes each, back to the system and
    takes them again, cleared page by page: a few percent of the time on a CPU. Several arenas, one
    a thread, do so even more often.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # malloc.h
    mallopt(arena_max, 1)
    mallopt(trim_threshold, 1 << 30)
    mallopt(mmap_threshold, 1 << 30)


def give_back_memory() -> None:
    """Have glibc give the system what is free in its heap; elsewhere, do nothing.

    Takes up to a tenth of a second a gigabyte, in which nobody is given memory.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)


def token_bytes(engine: PackedEngine) -> float:
    """Bytes that a token of a step takes on the engine's device, at the worst moment."""
    tokens = min(_COUNTED_TOKENS, engine.card.context)
    with _LiveBytes() as live:
        engine.run([StepDocument(np.zeros(tokens, dtype=np.int64))])
    return float(live.peak / tokens)


def free_bytes(device: str) -> int:
    """Bytes that are free where the engine computes."""
    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + held)
    return int(min(psutil.virtual_memory().available, _container_free(_CGROUP)))


def step_budget(
    engine: Engine, asked: int | None, longest: int, free: Callable[[str], int] = free_bytes
) -> int:
    """Tokens of a step that the memory there is can hold. To be called on the engine's thread.

    Args:
        engine: What computes. One that runs documents by themselves takes any budget.
        asked: What the operator wants; None for the largest that fits, up to the device's default.
        longest: Tokens of the longest document, which must fit in any case.
        free: Tells the bytes that are free on a device.

    Raises:
        StartupError: what is asked for, or the longest document, does not fit.
    """
    card = engine.card
    kind = torch.device(card.device).type
    default = DEFAULT_STEP_TOKENS.get(kind, DEFAULT_STEP_TOKENS["cuda"])
    if not isinstance(engine, PackedEngine):
        return asked or default
    each = token_bytes(engine)
    free_now = free(card.device)
    # The engine rounds the rows of a step up.
    fits = int(_USABLE * free_now / each) // engine.row_multiple * engine.row_multiple
    if longest > fits:
        raise StartupError(
            f"a document of {longest} tokens needs {_gib(each * engine.rows(longest))} beside the "
            f"model and {card.device} has {_gib(free_now)} free: "
            + (f"set --document-tokens {fits}, or " if fits else "")
            + "free memory on it"
        )
    if asked is None:
        return min(default, max(longest, fits))
    if asked > fits:
        raise StartupError(
            f"--step-tokens {asked} needs {_gib(each * engine.rows(asked))} beside the model and "
            f"{card.device} has {_gib(free_now)} free: {fits} would fit, or leave it out"
        )
    return asked


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _container_free(cgroup: Path) -> float:
    """Bytes that a container may still take (cgroup v2); infinite without a limit."""
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return float("inf")
    # Pages of files that nobody uses, such as weights just read, are given up for the asking.
    return limit - used + int(stat.get("inactive_file", 0))


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are made and still there, on whatever device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            if storage._cdata not in given:
                self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    """The memory of the tensors in a tree. Packed weights have none that can be asked for."""
    for leaf in tree_iter(tree):
        if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided:
            yield leaf.untyped_storage()
