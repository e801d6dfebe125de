"""What a job needs of an object store."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from actvec.client.errors import ActvecError


def is_remote(folder: str | Path) -> bool:
    """Whether a folder is a URL."""
    return isinstance(folder, str) and "://" in folder


class StoreBusyError(Exception):
    """A store takes no change for now.

    Attributes:
        seconds: When to try again.
    """

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class Store(Protocol):
    """A folder in a store; files have names in it, such as `vectors.parquet/part-00000.parquet`.

    Methods raise whatever the store's package raises; see `naming_store`.

    Attributes:
        url: The URL of the folder.
        atomic: Whether a change is there whole or not at all. If not, each file is, and files
            appear in their order.
        save_every: The fewest seconds between two changes that the store allows.
    """

    url: str
    atomic: bool
    save_every: float

    def look(self) -> None:
        """See the present state; the next change builds on it."""

    def find(self) -> set[str]:
        """Look, and return the names of all files, at any depth."""

    def read(self, name: str) -> bytes | None:
        """Look, and return the content of a file; None if there is no such file."""

    def get(self, name: str, path: Path) -> None:
        """Download a file."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one; return whether there was none."""

    def change(self, files: Mapping[str, Path | None]) -> bool:
        """Upload files in this order; remove those that have no path.

        Returns:
            Whether it was done. A store that is atomic does nothing, and returns False, if others
            have changed it since the last look.

        Raises:
            StoreBusyError: it takes no change for now.
        """


@contextlib.contextmanager
def naming_store(url: str) -> Iterator[None]:
    """Turn the errors of a store's package, each of its own kind, into `OSError` with the URL.

    Raises:
        OSError: what the body raises, unless it is an error of ours.
    """
    try:
        yield
    except ActvecError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise OSError(f"{url} cannot be read or written to: {reason}") from error
