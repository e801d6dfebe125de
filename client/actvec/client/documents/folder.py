"""A folder of `.txt` files, one document per file."""

import hashlib
from array import array
from collections.abc import Container, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from actvec.client.documents.opening import not_a_file
from actvec.client.documents.source import DocumentSource, Located, decode
from actvec.client.records.vectors import Document, Failure


class FolderSource(DocumentSource):
    """The `.txt` files of a folder. See `open_documents`."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        """Keep the names of the files, in the order in which to read them."""
        super().__init__(folder)
        self._names = names

    @property
    def count(self) -> int:
        """The number of files."""
        return len(self._names)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self._sizes)

    def scan(self, skip: Container[int] = frozenset()) -> Iterator[Located]:
        """See `DocumentSource.scan`; skipped files are not opened."""
        end = 0
        for index, name in enumerate(self._names):
            path = self.path / name
            end += _size(path)
            if index not in skip:
                yield Located(index, end, _read_file(path))

    def identity(self) -> dict[str, Any]:
        """See `DocumentSource.identity`: the names and sizes of the files, without reading them."""
        digest = hashlib.sha256()
        for name, size in zip(self._names, self._sizes, strict=True):
            digest.update(f"{size} {name}\0".encode("utf-8", "surrogateescape"))
        return {
            "kind": "folder",
            "files": self.count,
            "bytes": self.size,
            "sha256": digest.hexdigest(),
        }

    @cached_property
    def _sizes(self) -> "array[int]":
        """Bytes of each file, `[files]`."""
        return array("q", (_size(self.path / name) for name in self._names))


def read_text(path: Path) -> str:
    """Read a file's text unchanged, except for a byte order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8; the message gives the position.
    """
    return decode(path.read_bytes())


def _size(path: Path) -> int:
    # A missing file counts 0 here; its turn to be read reports it.
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read_file(path: Path) -> Document | Failure:
    try:
        # A pipe or a device may never end.
        if kind := not_a_file(path.stat().st_mode):
            message = f"{path} is {kind}, not a file"
            return Failure(path.stem, "INVALID_ARGUMENT", message, "text")
        return Document(path.stem, read_text(path))
    except OSError as error:
        return Failure(path.stem, "UNAVAILABLE", f"cannot read {path}: {error.strerror}", "text")
    except ValueError as error:
        return Failure(path.stem, "INVALID_ARGUMENT", f"{path}: {error}", "text")
