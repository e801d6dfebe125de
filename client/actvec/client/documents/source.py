"""What every source of documents can do."""

import abc
import hashlib
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actvec.client.errors import SourceBroken
from actvec.client.vectors import Document, Failure


@dataclass(frozen=True, slots=True)
class Located:
    """A document and where it stands.

    Attributes:
        index: Its number among the documents of its source, from 0.
        end: Bytes of the source up to and with it, as `DocumentSource.size` counts them.
        document: The document, or why it cannot be read.
    """

    index: int
    end: int
    document: Document | Failure


class DocumentSource(abc.ABC):
    """Documents on disk. Each iteration reads anew.

    Attributes:
        path: Where they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Document | Failure]:
        return (located.document for located in self.scan())

    @property
    @abc.abstractmethod
    def count(self) -> int | None:
        """How many there are, where that is known without reading them."""

    @property
    @abc.abstractmethod
    def size(self) -> int | None:
        """Bytes that there are to read, of which `Located.end` tells how far a scan has come.

        None where that is unknown, as of a pipe.
        """

    @abc.abstractmethod
    def scan(self, skip: Container[int] = frozenset()) -> Iterator[Located]:
        """The documents in order, save for those whose numbers are in `skip`.

        Raises:
            SourceBroken: the source cannot be read to its end, which is so for every shard of it
                and whatever is skipped: nobody knows what would have followed.
        """

    @abc.abstractmethod
    def identity(self) -> dict[str, Any] | None:
        """What tells this input from another, as JSON takes it; None of what is read only once.

        A file is told by its kind, size and SHA-256, wherever it lies.

        Raises:
            OSError: it cannot be read.
        """


def file_identity(path: Path, kind: str) -> dict[str, Any] | None:
    """The identity of a single file; None of a pipe.

    Raises:
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"kind": kind, "bytes": file.tell(), "sha256": digest}


def source_broken(path: Path, where: str, error: Exception) -> SourceBroken:
    """The end of a file before its end."""
    return SourceBroken(
        f"{path}, {where}: from here on the file cannot be read: {error}. Run again where a disk or"
        " a network failed; a file that was cut short is to be made or fetched again"
    )


def parse_id(value: object, *, default: str) -> str:
    """A document's id from what stands in a file.

    Raises:
        ValueError: it is neither a string nor an integer nor nothing.
    """
    if value is None:
        return default
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"`id` is a string or an integer, not {json_type(value)}")


def decode(data: bytes) -> str:
    """The text that bytes in a file stand for, save for a byte order mark.

    Raises:
        ValueError: they are not UTF-8; the message says where.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from None


def json_type(value: object) -> str:
    """What JSON calls a value, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
