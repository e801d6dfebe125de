"""Files that are there whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

_PREFIX, _SUFFIX = ".actvec-", ".tmp"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A new file beside `path`, for somebody else to write, that becomes `path` at the end.

    Where the body raises it is removed, and `path` is as it was before.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    # The process's umask applies, as it would not with a private temporary file.
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield temporary
        _sync(temporary, os.O_RDWR)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there with all of `data`, or as it was before.

    Raises:
        OSError: it cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def check_writable(folder: Path) -> None:
    """Find out now, not after an hour of computing.

    Raises:
        OSError: no file can be made in the folder.
    """
    probe = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    probe.touch(exist_ok=False)
    probe.unlink()


def sync_folder(folder: Path) -> None:
    """Make what was renamed in a folder last through a loss of power.

    Raises:
        OSError: it cannot be done.
    """
    _sync(folder, os.O_RDONLY)


def remove_partial(folder: Path) -> None:
    """Remove what a killed process left half written.

    Raises:
        OSError: it cannot be removed.
    """
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        path.unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
