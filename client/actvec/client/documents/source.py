"""The interface of sources of documents."""

import abc
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

from actvec.client.documents.opening import is_repeatable
from actvec.client.files import Content
from actvec.client.records.columns import Scalar, as_columns
from actvec.client.records.inputs import CONVERSATIONS, make_document
from actvec.client.records.vectors import Document, Failure

# The field or column of spans.
SPANS = "spans"


@dataclass(frozen=True, slots=True)
class Located:
    """A document and its position.

    Attributes:
        index: Its number in its source, from 0.
        end: Bytes of the source up to its end, as `DocumentSource.size` counts them.
        document: The document, or the reason why it cannot be read.
    """

    index: int
    end: int
    document: Document | Failure


@dataclass(frozen=True)
class Columns:
    """The fields of a line, or columns of a row, that make a document.

    A `spans` beside a text or token ids holds their spans: `(name, start, end)` or `{"name": ...,
    "start": ..., "end": ...}` each.

    Attributes:
        text: The field of the document: a string is a text, a list of `{"role": ..., "content":
            ...}` or `{"from": ..., "value": ...}` a chat, a list of whole numbers token ids. `text`
            also stands for `messages`, `token_ids` and `conversations`, which are lists: the first
            of the four that a document has counts.
        id: The field of the id, a string or an integer. A document without one gets the number of
            its line or row, from 1; None gives such ids to all of them. A name other than `id` must
            exist.
        keep: Fields that become the columns of each document, such as its label: strings, numbers,
            booleans, dates or null. Each must exist, and is None in a document without it.
    """

    text: str = "text"
    id: str | None = "id"
    keep: tuple[str, ...] = ()

    def sources(self) -> tuple[str, ...]:
        """The fields that may hold a document; the first present one counts."""
        if self.text != "text":
            return (self.text,)
        return ("text", "messages", "token_ids", CONVERSATIONS)

    def identity(self) -> dict[str, Any]:
        """Their part in the identity of a source; empty for the defaults."""
        if self == Columns():
            return {}
        # As JSON; jobs of an earlier version have no `keep`.
        kept = {"keep": list(self.keep)} if self.keep else {}
        return {"columns": {"text": self.text, "id": self.id} | kept}


class DocumentSource(abc.ABC):
    """Documents on disk. Each iteration reads them again.

    Attributes:
        path: The path of the documents.
        kept: The names of the columns that each document has.
    """

    def __init__(self, path: Path, kept: Sequence[str] = ()) -> None:
        self.path = path
        self.kept = tuple(kept)

    def __iter__(self) -> Iterator[Document | Failure]:
        return (located.document for located in self.scan())

    def check(self) -> None:  # noqa: B027 - most sources have nothing to look at
        """Look at the first documents of a source that can be read again.

        Raises:
            UnsupportedInput: the fields of texts or ids do not exist; the message names those that
                do.
        """

    @property
    @abc.abstractmethod
    def count(self) -> int | None:
        """Number of documents, if known without reading them; else None."""

    @property
    @abc.abstractmethod
    def size(self) -> int | None:
        """Bytes to read, the scale of `Located.end`.

        None if unknown, as for a pipe.
        """

    @abc.abstractmethod
    def scan(self, skip: Container[int] = frozenset()) -> Iterator[Located]:
        """Yield the documents in order, except for those whose numbers are in `skip`.

        Raises:
            SourceBroken: the source cannot be read to its end. Every shard of it raises this,
                whatever it skips, since the missing part may belong to any.
            UnsupportedInput: the first documents of a pipe lack the named fields.
        """

    @abc.abstractmethod
    def identity(self) -> dict[str, Any] | None:
        """Identify this input, as JSON values; None if it can be read only once.

        A file is identified by its kind, size and SHA-256, not by its path.

        Raises:
            OSError: it cannot be read.
        """


def missing_columns(columns: Columns, fields: Iterable[str]) -> str | None:
    """Explain, with the fields that exist, which required field is missing; None if none is."""
    fields = list(fields)
    required = [columns.sources(), *((name,) for name in columns.keep)]
    if columns.id not in (None, "id"):
        required.append((columns.id,))
    for names in required:
        if not set(names) & set(fields):
            found = ", ".join(fields) or "none"
            wanted = " or ".join(map(repr, names))
            return f"no column {wanted}; there are: {found}"
    return None


def named_values(columns: Columns, record: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Explain, for each named field of a record, why its value is unusable; None if it is not."""
    fields: list[tuple[str, tuple[type, ...], str]] = [
        (name, (str, int, float, NoneType), "a string, a number, a boolean or null")
        for name in columns.keep
    ]
    if columns.text != "text":
        fields.append((columns.text, (str, list), "a string or a list"))
    if columns.id not in (None, "id"):
        fields.append((columns.id, (str, int, NoneType), "a string or an integer"))
    for name, types, wanted in fields:
        if name in record:
            fits = isinstance(record[name], types)
            reason = f"{name!r} holds {json_type(record[name])}, not {wanted}"
            yield name, None if fits else reason


def parse_document(
    record: Mapping[str, Any], columns: Columns, *, default_id: str, where: str
) -> Document | Failure:
    """Parse the document of a line or row; return a failure if there is none.

    Args:
        record: Its fields.
        columns: The fields of a document.
        default_id: The id of a document without one.
        where: The file and the line or row, for the message.
    """
    document_id, field = default_id, "id"
    kept: dict[str, Scalar] = {}
    try:
        if columns.id is not None:
            document_id = parse_id(record.get(columns.id), name=columns.id, default=default_id)
        field = "columns"
        kept = as_columns({name: record.get(name) for name in columns.keep})
        field = "text"
        name = next((one for one in columns.sources() if record.get(one) is not None), None)
        if name is None:
            name = next((one for one in columns.sources() if one in record), None)
            found = ", ".join(record) or "none"
            raise ValueError(
                f"no `{columns.text}`; there are: {found}" if name is None else f"`{name}` is null"
            )
        field = source = _source_of(record[name], name, named=name == columns.text)
    except (ValueError, TypeError) as error:
        return Failure(document_id, "INVALID_ARGUMENT", f"{where}: {error}", field, columns=kept)
    made = make_document(document_id, {source: record[name]}, record.get(SPANS), kept)
    if isinstance(made, Failure):
        return replace(made, message=f"{where}: {made.message}")
    return made


def _source_of(value: object, name: str, *, named: bool) -> str:
    """The kind of a value: text, messages or token ids; only of a named field it may be a text.

    Raises:
        ValueError: it is none of these.
    """
    if named and isinstance(value, str):
        return "text"
    if not isinstance(value, list):
        wanted = "a string or a list" if named else "a list"
        raise ValueError(f"`{name}` is {wanted}, not {json_type(value)}")
    whole = bool(value) and all(isinstance(one, int) for one in value)
    return "token_ids" if whole or name == "token_ids" else "messages"


def file_identity(path: Path, kind: str) -> dict[str, Any] | None:
    """Identify a single file; None for a pipe.

    Raises:
        OSError: it cannot be read.
    """
    if not is_repeatable(path):
        return None
    return {"kind": kind} | asdict(Content.of(path))


def parse_id(value: object, *, name: str, default: str) -> str:
    """Parse a document's id from the field `name` of a file.

    Raises:
        ValueError: it is neither a string nor an integer nor missing.
    """
    if value is None:
        return default
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"`{name}` is a string or an integer, not {json_type(value)}")


def decode(data: bytes) -> str:
    """Decode text from a file, without a byte order mark.

    Raises:
        ValueError: it is not UTF-8; the message gives the position.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from None


def json_type(value: object) -> str:
    """The JSON type of a value, with its article."""
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
