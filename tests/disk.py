"""Records a program's disk operations in order, and what a kill between two of them leaves."""

import errno
import os
import resource
import shutil
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
def recorded(
    before_each: Callable[[int], object] = lambda _: None,
) -> Iterator[list[Operation]]:
    """Record this process's operations within the block; call a function before each of them."""
    operations: list[Operation] = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def note(kind: str, path: Path, size: int = 0) -> None:
        before_each(len(operations))
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


@contextmanager
def failing_disk(number: int = errno.ENOSPC) -> Iterator[None]:
    """A block in which nothing that this process writes becomes lasting: the disk is full."""

    def failing(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.MonkeyPatch.context() as disk:
        disk.setattr(os, "fsync", failing)
        yield


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """A block in which files grow to so many bytes only."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def remains(action: Callable[[], object], folder: Path, copies: Path) -> list[Path]:
    """What a process that runs an action would leave in a folder, killed at each moment.

    A process that SIGKILL ends leaves the files as they are at that moment: what it holds in
    buffers of its own is not in them. So we copy the folder before each operation, and need no
    process, whose fork takes a tenth of a second from tests that have imported everything.

    Args:
        action: Writes to the folder.
        folder: All that it writes to.
        copies: A folder to make.

    Returns:
        A copy of the folder before each operation, in order, and one from the end; none is made
        where the folder was not there.
    """
    kept: list[Path] = []

    def keep(number: int) -> None:
        kept.append(copies / str(number))
        if folder.exists():
            shutil.copytree(folder, kept[-1])

    with recorded(before_each=keep) as operations:
        action()
    assert operations
    keep(len(operations))
    return kept


def written_whole(name: str, size: int) -> list[Operation]:
    """The operations of an atomic write, which survive a loss of power."""
    return [
        Operation("fsync", "new file", size),
        Operation("rename", name, size),
    ]
