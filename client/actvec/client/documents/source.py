"""What every source of documents can do."""

import abc
import hashlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actvec.client.documents.opening import is_repeatable
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


@dataclass(frozen=True)
class Columns:
    """Which fields of a line, or columns of a row, make a document.

    Attributes:
        text: Holds the text.
        id: Holds the id, a string or an integer. A document without one is called by the number
            of its line or row, from 1; None gives all of them such ids. A name other than `id`
            must exist.
    """

    text: str = "text"
    id: str | None = "id"

    def required(self) -> list[str]:
        """The names without which a corpus was not meant."""
        return [self.text] if self.id in (None, "id") else [self.text, self.id]

    def identity(self) -> dict[str, Any]:
        """What they add to the identity of a source: nothing if they are the usual ones."""
        return {} if self == Columns() else {"columns": asdict(self)}


class DocumentSource(abc.ABC):
    """Documents on disk. Each iteration reads anew.

    Attributes:
        path: Where they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Document | Failure]:
        return (located.document for located in self.scan())

    def check(self) -> None:  # noqa: B027 - most sources have nothing to look at
        """Look at the first documents of a source that can be read again.

        Raises:
            UnsupportedInput: the fields that should hold texts or ids do not exist; the message
                names those that do.
        """

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
            SourceBroken: the source cannot be read to its end. Every shard of it raises this,
                whatever is skipped: nobody knows what would have followed.
            UnsupportedInput: a pipe whose first documents do not have the fields that were named.
        """

    @abc.abstractmethod
    def identity(self) -> dict[str, Any] | None:
        """What tells this input from another, as JSON takes it; None of what is read only once.

        A file is told by its kind, size and SHA-256, wherever it lies.

        Raises:
            OSError: it cannot be read.
        """


def missing_columns(columns: Columns, fields: Iterable[str]) -> str | None:
    """A reason that names the fields there are, if one that `columns` requires is not there."""
    fields = list(fields)
    for name in columns.required():
        if name not in fields:
            return f"no column {name!r}; there are: {', '.join(fields) or 'none'}"
    return None


def file_identity(path: Path, kind: str) -> dict[str, Any] | None:
    """The identity of a single file; None of a pipe.

    Raises:
        OSError: it cannot be read.
    """
    if not is_repeatable(path):
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"kind": kind, "bytes": file.tell(), "sha256": digest}


def parse_id(value: object, *, name: str, default: str) -> str:
    """A document's id from the field `name` of a file.

    Raises:
        ValueError: it is neither a string nor an integer nor nothing.
    """
    if value is None:
        return default
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"`{name}` is a string or an integer, not {json_type(value)}")


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
