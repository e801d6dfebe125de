"""Files that are there whole or not at all, and what is in them.

If a file or folder cannot be read or written, these functions raise OSError with its path.
"""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_PREFIX, _SUFFIX = ".actvec-", ".tmp"


@dataclass(frozen=True)
class Content:
    """A fingerprint of a file's content.

    Attributes:
        bytes: Its size.
        sha256: Its SHA-256, in hexadecimal.
    """

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Compute the fingerprint of a file."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(file.tell(), digest)


def given_path(path: str | os.PathLike[str]) -> Path:
    """The path that a program names, with a leading `~` as the home directory.

    Otherwise a job in `~/vectors` would create a folder named `~`, and `rm -r ~` would not remove
    that one. The home of an unknown user stays as written.
    """
    return Path(os.path.expanduser(path))


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A new file beside `path`, for somebody else to write, that becomes `path` at the end.

    Where the body raises it is removed, and `path` is as it was before.
    """
    temporary = path.parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    with naming(path, instead=temporary):
        # The process's umask applies, as it would not with a private temporary file.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            yield temporary
            _sync(temporary, os.O_RDWR)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there with all of `data`, or as it was before."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, record: Any) -> None:
    """Write JSON for people as `write_atomic` does."""
    write_atomic(path, (json.dumps(record, indent=2) + "\n").encode())


@contextlib.contextmanager
def naming(path: Path, *, instead: Path | None = None) -> Iterator[None]:
    """Put a path into errors of the disk that have none, as those of a write.

    Args:
        path: The path.
        instead: A temporary path that it takes the place of.

    Raises:
        OSError: what the block raises, with `path` as its `filename`.
    """
    try:
        yield
    except OSError as error:
        # One without a number keeps its own text, which a path would hide.
        if error.errno and error.filename in (None, instead and str(instead)):
            error.filename = str(path)
            # Some libraries have words of their own.
            error.strerror = os.strerror(error.errno)
        raise


def check_writable(folder: Path) -> None:
    """Find out now, not after an hour of computing, whether files can be made in a folder."""
    probe = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    with naming(folder, instead=probe):
        probe.touch(exist_ok=False)
        probe.unlink()


def sync_folder(folder: Path) -> None:
    """Make what was renamed in a folder last through a loss of power."""
    with naming(folder):
        _sync(folder, os.O_RDONLY)


def remove_partial(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        path.unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
