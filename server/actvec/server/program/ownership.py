"""One server at a time in a data directory."""

import errno
import logging
import os
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from actvec.server.errors import StartupError

log = logging.getLogger(__name__)

_LOCK = ".lock"
# Errors of file systems that cannot lock, as on some networks.
_CANNOT_LOCK = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


class Ownership:
    """A data directory that no other server uses while this one holds it.

    The system releases it when the process ends, however it ends. It holds a file, `.lock`, which
    stays in the directory and names the process that holds it.

        ownership = Ownership.take(Path("data"))
        ...
        ownership.release()
    """

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    @classmethod
    def take(cls, directory: Path) -> Self:
        """Hold a directory, which is created if it is missing.

        Raises:
            StartupError: another server holds it, or it cannot be created or written to.
        """
        path = directory / _LOCK
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # Taken on the event loop, and released on any thread.
            lock = FileLock(path, blocking=False, thread_local=False)
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
        return cls(lock)

    def release(self) -> None:
        """Release the directory. Safe to call twice."""
        self._lock.release()


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
