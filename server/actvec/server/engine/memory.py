"""The memory of a step, and the largest step that fits.

Beside the weights, the packed engine needs memory in proportion to the tokens of a step, however
they divide into documents: its attention never holds the scores of a whole document. So one small
step measures the bytes per token, which hold for all.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from actvec.pooling import LAST, PoolTokens
from actvec.server.engine.packed import Engine, PackedEngine
from actvec.server.engine.step import StepDocument
from actvec.server.engine.weighing import weights_of
from actvec.server.errors import StartupError, SumsTooLargeError
from actvec.server.model.target import Target

DEFAULT_STEP_TOKENS = {"cpu": 2048, "cuda": 8192}

# The rest is for kernels' own buffers, sums of means, and the rest of the program.
_USABLE = 0.8
_COUNTED_TOKENS = 512

_CGROUP = Path("/sys/fs/cgroup")


def token_bytes(engine: PackedEngine) -> float:
    """Measure the peak bytes per token of a step on the engine's device.

    The step captures every layer at every hook on offer, with one pool each.
    """
    card = engine.card
    tokens = min(_COUNTED_TOKENS, card.context)
    weights = weights_of((LAST,), PoolTokens(tokens))
    ids = np.zeros(tokens, dtype=np.int64)
    asked = [Target(tuple(card.layers_on_offer), hook, separate=True) for hook in card.hooks]
    peak = 0
    for target in asked:
        with _LiveBytes() as live:
            engine.run([StepDocument(ids, weights, target)])
        peak = max(peak, live.peak)
    return float(peak / tokens)


def free_bytes(device: str) -> int:
    """Bytes free on the engine's device."""
    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + held)
    return int(min(psutil.virtual_memory().available, _container_free(_CGROUP)))


def check_sums(devices: Sequence[str], size: int, free: Callable[[str], int] = free_bytes) -> None:
    """Check that there is memory for the sums of a mean.

    They are on each engine's device while documents are added, and three times on the host during
    a commit: the old sums, the new ones, and the file; with several engines a fourth time, to merge
    theirs.

    Args:
        devices: The device of each engine.
        size: Bytes of the sums.
        free: Returns the bytes free on a device.

    Raises:
        SumsTooLargeError: there is not enough.
    """
    places = dict.fromkeys(devices, 1)
    on_cpu = sum(torch.device(device).type == "cpu" for device in devices)
    places["cpu"] = 3 + on_cpu + (len(devices) > 1)
    for place, times in places.items():
        if times * size > _USABLE * free(place):
            raise SumsTooLargeError(_gib(times * size), place, _gib(free(place)))


def step_budget(
    engine: Engine, asked: int | None, longest: int, free: Callable[[str], int] = free_bytes
) -> int:
    """Choose the tokens of a step that fit the memory. Call it on the engine's thread.

    Args:
        engine: The engine. One that runs single documents accepts any budget.
        asked: The operator's choice; None for the largest that fits, up to the device's default.
        longest: Tokens of the longest document, which must fit in any case.
        free: Returns the bytes free on a device.

    Raises:
        StartupError: the choice, or the longest document, does not fit.
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
            f"model and {card.device} has {_gib(free_now)} free, enough for {fits}",
            setting="document_tokens",
        )
    if asked is None:
        return min(default, max(longest, fits))
    if asked > fits:
        raise StartupError(
            f"a step of {asked} tokens needs {_gib(each * engine.rows(asked))} beside the model "
            f"and {card.device} has {_gib(free_now)} free, enough for {fits}",
            setting="step_tokens",
        )
    return asked


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _container_free(cgroup: Path) -> float:
    """Bytes that a container may still use (cgroup v2); infinite without a limit."""
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return float("inf")
    # The system drops unused pages of files, such as weights just read, on demand.
    return limit - used + int(stat.get("inactive_file", 0))


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live tensors created under it, on any device."""

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
    """The memory of the tensors in a tree. Packed weights have none that can be queried."""
    for leaf in tree_iter(tree):
        if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided:
            yield leaf.untyped_storage()
