"""Atomic files, and the errors of a disk that refuses."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actvec.server.errors import StorageError, StorageFullError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def storing(what: str) -> Iterator[None]:
    """Turn a refusal of the disk within the block into an error that names what was to be stored.

    Raises:
        StorageFullError: there is no room.
        StorageError: the disk refuses for another reason.
    """
    try:
        yield
    except OSError as error:
        kind = StorageFullError if error.errno in _FULL else StorageError
        raise kind(f"cannot store {what}: {error.strerror or error}") from error


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file atomically: whole or not at all, even after a loss of power.

    Raises:
        OSError: the disk is full or cannot be written; `path` is unchanged.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make a rename or removal in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial(directory: Path) -> None:
    """Remove files that a killed process left unfinished."""
    for path in directory.glob(".partial-*"):
        path.unlink(missing_ok=True)
