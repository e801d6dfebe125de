"""JSON lines and tables in CSV, plain or compressed, one document per line or row."""

import contextlib
import csv
import io
import json
import lzma
import zlib
from collections.abc import Container, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from actvec.client.documents.opening import (
    STDIN,
    Opener,
    decompressed,
    delimiter_of,
    is_repeatable,
    open_stdin,
    source_broken,
)
from actvec.client.documents.source import (
    Columns,
    DocumentSource,
    Located,
    decode,
    file_identity,
    json_type,
    missing_columns,
    named_values,
    parse_document,
)
from actvec.client.errors import SourceBroken, UnsupportedInput
from actvec.client.records.vectors import Document, Failure

# Number of documents to search for the named fields.
_FIRST = 100

# Characters of a cell: as many as Python's reader takes on every system.
_MOST = (1 << 31) - 1

# A line, or what is wrong with it.
_Content = bytes | ValueError
# The line's number from 1, the offset of its end in the file in bytes, and the line.
_Line = tuple[int, int, _Content]


class LinesSource(DocumentSource):
    """JSON lines, or the rows of a table. See `open_documents`."""

    def __init__(
        self,
        path: Path,
        compression: str = "",
        columns: Columns | None = None,
        *,
        name: str | None = None,
        opener: Opener | None = None,
    ) -> None:
        """Configure the source, without opening the file.

        Args:
            path: The file; `-` is standard input. One that ends as a table does is one.
            compression: "", "gzip", "zstd", "xz" or "bz2".
            columns: The fields of a document.
            name: The file's name in messages; None for its path.
            opener: Opens the file, if it is not at `path` on this machine.
        """
        self._columns = columns or Columns()
        super().__init__(path, self._columns.keep)
        self._compression = compression
        self._delimiter = delimiter_of(path.name)
        self._unit = "row" if self._delimiter else "line"
        self._name = name or ("standard input" if path == STDIN else str(path))
        self._remote = opener is not None
        self._open = opener or (open_stdin if path == STDIN else lambda: path.open("rb"))

    @property
    def count(self) -> None:
        """None: unknown."""
        return None

    @property
    def size(self) -> int | None:
        """Bytes of the file, compressed if it is; None for a pipe."""
        return self.path.stat().st_size if is_repeatable(self.path) else None

    def check(self) -> None:
        """See `DocumentSource.check`."""
        if self._remote or is_repeatable(self.path):
            fields = _Fields(self._columns, self._name)
            # If the file breaks here, `scan` will report it after the readable part.
            with contextlib.suppress(SourceBroken):
                for _, _, line in islice(self._lines(), _FIRST):
                    if fields.known:
                        return
                    fields.add(line)
                fields.end()

    def scan(self, skip: Container[int] = frozenset()) -> Iterator[Located]:
        """See `DocumentSource.scan`; skipped documents are not parsed."""
        fields = _Fields(self._columns, self._name)
        # `check` cannot read a pipe ahead, and files of one data set have different fields.
        fields.known = self._remote or is_repeatable(self.path)
        for index, (number, end, line) in enumerate(self._lines()):
            if not fields.known:
                fields.add(line)
            if index not in skip:
                yield Located(index, end, self._parse(line, number))
        if not fields.known:
            fields.end()

    def identity(self) -> dict[str, Any] | None:
        """See `DocumentSource.identity`."""
        kind = {"": "jsonl", ",": "csv", "\t": "tsv"}[self._delimiter]
        ending = {"": "", "gzip": ".gz", "zstd": ".zst", "xz": ".xz", "bz2": ".bz2"}
        identity = file_identity(self.path, kind + ending[self._compression])
        return identity and identity | self._columns.identity()

    def _lines(self) -> Iterator[_Line]:
        """Yield the lines that are not blank."""
        number = 0
        try:
            with self._open() as raw:
                seekable = raw.seekable()
                file = decompressed(raw, self._compression)
                lines = _rows(file, self._delimiter) if self._delimiter else file
                for number, line in enumerate(lines, start=1):
                    if isinstance(line, ValueError) or line.strip():
                        yield number, raw.tell() if seekable else 0, line
        except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
            raise source_broken(self._name, f"{self._unit} {number + 1}", error) from error

    def _parse(self, line: _Content, number: int) -> Document | Failure:
        where = f"{self._name}, {self._unit} {number}"
        try:
            record = _record(line)
        except ValueError as error:
            return Failure(str(number), "INVALID_ARGUMENT", f"{where}: {error}")
        return parse_document(record, self._columns, default_id=str(number), where=where)


class _Fields:
    """Searches the first lines for the named fields.

    Attributes:
        known: Whether the search is over.
    """

    def __init__(self, columns: Columns, name: str) -> None:
        self.known = False
        self._columns = columns
        self._name = name
        self._found: dict[str, None] = {}
        # For each named field, why its values so far are unusable; None if one is usable.
        self._problems: dict[str, str | None] = {}
        self._lines = 0

    def add(self, line: _Content) -> None:
        """Search one more line.

        Raises:
            UnsupportedInput: it is the last line to search, and a field is missing or unusable.
        """
        start = line.lstrip() if isinstance(line, bytes) else b""
        if not self._lines and (start.rstrip() == b"[" or start.startswith(b"[{")):
            raise UnsupportedInput(
                f"{self._name} is one JSON array; write one object per line (`jq -c '.[]'`)"
            )
        # A line that is not a record fails as a document.
        with suppress(ValueError):
            record = _record(line)
            self._found.update(dict.fromkeys(record))
            for name, reason in named_values(self._columns, record):
                if reason is None:
                    self._problems[name] = None
                else:
                    self._problems.setdefault(name, reason)
        self._lines += 1
        self.known = self._wrong() is None
        if self._lines == _FIRST:
            self.end()

    def end(self) -> None:
        """End the search.

        Raises:
            UnsupportedInput: there are records, and a field is missing or unusable in all of them.
        """
        if self._found and (wrong := self._wrong()):
            of = f"its {self._lines}" if self._lines < _FIRST else f"the first {_FIRST}"
            raise UnsupportedInput(f"{self._name}, {of} documents: {wrong}")
        self.known = True

    def _wrong(self) -> str | None:
        if missing := missing_columns(self._columns, self._found):
            return missing
        problem = next(filter(None, self._problems.values()), None)
        return problem and f"column {problem}, in each of them; there are: {', '.join(self._found)}"


def _rows(file: BinaryIO, delimiter: str) -> Iterator[_Content]:
    """The rows of a table as JSON lines, by the names in its first row.

    A byte that is not UTF-8 becomes half a character, which costs only its document, as does a row
    with another number of cells than columns.

    Raises:
        ValueError: from here on they cannot be told apart.
    """
    csv.field_size_limit(_MOST)
    text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    try:
        rows = filter(None, csv.reader(text, delimiter=delimiter, strict=True))
        names = next(rows, [])
        # Spreadsheets leave empty columns behind the others, without names.
        named = list(filter(None, names))
        if len(set(named)) < len(named):
            raise ValueError(f"columns of one name in {', '.join(names)}")
        for row in rows:
            if len(row) == len(names):
                yield json.dumps(dict(zip(names, row, strict=True))).encode()
            else:
                yield ValueError(
                    f"{len(row)} cells, and {len(names)} columns; quote a cell with {delimiter!a}"
                )
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _record(line: _Content) -> dict[str, Any]:
    """Parse the JSON object on a line.

    Raises:
        ValueError: it is not one; the message says why.
    """
    if isinstance(line, ValueError):
        raise line
    try:
        record = json.loads(decode(line))
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not a document: JSON nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError(f"must be a JSON object, not {json_type(record)}")
    return record
