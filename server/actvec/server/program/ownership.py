"""One server at a time in a data directory."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from actvec.server.errors import StartupError

log = logging.getLogger(__name__)

_LOCK = ".lock"
# Errors of file systems that cannot lock, as on some networks.
_CANNOT_LOCK = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


@contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Hold a data directory, so that no other server uses it; create it if it is missing.

    The system releases it when the process ends, however it ends. A file, `.lock`, stays in the
    directory and names the process that holds it or held it last.

    Raises:
        StartupError: another server holds it, or it cannot be created or written to.
    """
    path = directory / _LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise StartupError(
                f"another server{_holder(path)} uses the data directory {directory}; stop it, "
                "or give this one a directory of its own"
            ) from None
        except OSError as error:
            if error.errno not in _CANNOT_LOCK:
                raise
            log.warning(
                (
                    "the file system of %s cannot lock files (%s): make sure that no other "
                    "server uses it"
                ),
                *(directory, error.strerror),
            )
        else:
            _sign(path)
    except OSError as error:
        raise StartupError(
            f"cannot use the data directory {directory}: {error.strerror or error}"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _sign(path: Path) -> None:
    """Write the process id into the lock file, for the error message of a second process."""
    # If the system has no locks, filelock keeps a note of its own in the file.
    if not path.read_text().strip() or path.read_text().strip().isdigit():
        path.write_text(f"{os.getpid()}\n")


def _holder(path: Path) -> str:
    try:
        number = path.read_text().strip()
    except (OSError, ValueError):
        return ""
    return f" (process {number})" if number.isdigit() else ""
