"""A folder of `.txt` files, one document per file."""

import hashlib
import os
from array import array
from collections.abc import Container, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from actvec.client.documents.opening import not_a_file
from actvec.client.documents.source import DocumentSource, Located, decode
from actvec.client.records.vectors import Document, Failure

# Folders to look into below a sub-folder for texts that are skipped: a home has millions of them.
_MOST_FOLDERS = 1000


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


def texts_in(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of a folder's `.txt` files, and of its sub-folders that hold any at any depth.

    Hidden files and folders do not count: they are those of systems and editors, such as `._a.txt`
    beside each `a.txt` of an archive from a Mac.

    Raises:
        OSError: the folder cannot be read.
    """
    # Names only: all of them must be sorted, and they are small beside the texts.
    names, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_text(entry.name):
                names.append(entry.name)
            elif not entry.name.startswith(".") and entry.is_dir() and _holds_texts(entry.path):
                folders.append(entry.name)
    return sorted(names), sorted(folders)


def read_text(path: Path) -> str:
    """Read a file's text unchanged, except for a byte order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8; the message gives the position.
    """
    return decode(path.read_bytes())


def _is_text(name: str) -> bool:
    return name.lower().endswith(".txt") and not name.startswith(".")


def _holds_texts(folder: str) -> bool:
    """Whether a text is in a folder, or in one of the first folders below it."""
    for _, folders, files in islice(os.walk(folder), _MOST_FOLDERS):
        if any(map(_is_text, files)):
            return True
        folders[:] = [name for name in folders if not name.startswith(".")]
    return False


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
