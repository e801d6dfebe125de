"""One process at a time in a folder."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from actvec.client.errors import Aborted

_LOCK = ".lock"

# What it may take others to write a few files; a job holds its folder longer.
VISIT_SECONDS = 10.0
# Errors of file systems that have no locks, as some network file systems. There the user has to see
# to it that no job runs twice.
_CANNOT_LOCK = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


@contextlib.contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder against other processes that lock it.

    The folder is created if it is missing. The system releases it when this process ends, however
    it ends. A file, `.lock`, stays in it and names the process that holds it or held it last.

    Args:
        folder: The folder.
        wait: Seconds to wait for a process that holds it.

    Raises:
        Aborted: another process holds it.
        OSError: no file can be made in it.
    """
    path = folder / _LOCK
    # Taken in one thread and released in another, if a job runs in an event loop.
    lock = FileLock(path, timeout=wait, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise Aborted(
            f"another process{_holder(path)} is writing to {folder}; wait for it, or give another"
            " folder"
        ) from None
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise
    else:
        _sign(path)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def visiting(folder: Path) -> Iterator[None]:
    """Write a few files to a folder that may be a job's; hold it meanwhile if it is.

    A folder where no job ever was gets no `.lock`.

    Raises:
        Aborted: another process holds it for longer than `VISIT_SECONDS`.
        OSError: it cannot be locked.
    """
    with locked(folder, VISIT_SECONDS) if (folder / _LOCK).exists() else contextlib.nullcontext():
        yield


def _sign(path: Path) -> None:
    """Write the process id into the lock file, for the error message of a second process."""
    # Without locks in the system, filelock keeps a note of its own in the file.
    written = path.read_text().strip()
    if not written or written.isdigit():
        # The number is a courtesy: a full disk must not keep a job from being resumed.
        with contextlib.suppress(OSError):
            path.write_text(f"{os.getpid()}\n")


def _holder(path: Path) -> str:
    try:
        number = path.read_text().strip()
    except (OSError, ValueError):
        return ""
    return f" (pid {number})" if number.isdigit() else ""
