"""Records a program's disk operations in order, and kills programs between two of them."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest


class Operation(NamedTuple):
    """One operation with durable effect.

    Attributes:
        kind: `fsync` of a file, `fsync folder`, `rename` (the new name counts) or `unlink`.
        name: Name of the file or folder; `new file` before it has a lasting name.
        size: Bytes of the file that is synced or renamed; 0 for others.
    """

    kind: str
    name: str
    size: int = 0


def _name(path: Path) -> str:
    """Names of temporary files are random."""
    return "new file" if path.name.startswith((".partial-", ".actvec-")) else path.name


@contextmanager
def recorded(kill_before: int | None = None) -> Iterator[list[Operation]]:
    """Record this process's operations within the block; optionally kill it before one of them."""
    operations: list[Operation] = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def note(kind: str, path: Path, size: int = 0) -> None:
        if len(operations) == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)
        operations.append(Operation(kind, _name(path), size))

    def recorded_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            note("fsync folder", path)
        else:
            note("fsync", path, os.fstat(descriptor).st_size)
        fsync(descriptor)

    def recorded_replace(source, target, **options) -> None:
        note("rename", Path(target), Path(source).stat().st_size)
        replace(source, target, **options)

    def recorded_unlink(path, **options) -> None:
        if Path(path).exists():
            note("unlink", Path(path))
        unlink(path, **options)

    with pytest.MonkeyPatch.context() as disk:
        disk.setattr(os, "fsync", recorded_fsync)
        disk.setattr(os, "replace", recorded_replace)
        disk.setattr(os, "unlink", recorded_unlink)
        yield operations


def killed(action: Callable[[], object], before: int) -> bool:
    """Run an action in a process that is killed before its operation with this number, from 0.

    Returns:
        Whether the action had so many operations.
    """
    child = os.fork()
    if child == 0:
        try:
            with recorded(kill_before=before):
                action()
        finally:
            # In any case: this process's tests are the parent's.
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def written_whole(name: str, size: int) -> list[Operation]:
    """The operations of an atomic write, which survive a loss of power."""
    return [
        Operation("fsync", "new file", size),
        Operation("rename", name, size),
    ]
