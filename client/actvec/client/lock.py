"""One process at a time in a folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from actvec.client.errors import Aborted


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes that lock it; the system lets go of it with this one.

    Raises:
        Aborted: another process holds it.
        OSError: there is no such folder.
    """
    try:
        import fcntl  # noqa: PLC0415 - not on every system
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot lock a folder. There it is the user who must not start
        # a job twice.
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Aborted(
                    f"another process is writing to {folder}; wait for it, or give another folder"
                ) from None
        yield
    finally:
        os.close(descriptor)
