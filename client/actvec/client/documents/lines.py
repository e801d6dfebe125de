"""JSON lines, plain or compressed, one document per line."""

import contextlib
import json
import zlib
from collections.abc import Container, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from actvec.client.documents.opening import (
    STDIN,
    Opener,
    decompressed,
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
    parse_id,
)
from actvec.client.errors import SourceBroken, UnsupportedInput
from actvec.client.vectors import Document, Failure

# The first documents, which tell whether the fields that were named exist.
_FIRST = 100

# The line's number from 1, the bytes of the file up to and with it, and the line.
_Line = tuple[int, int, bytes]


class LinesSource(DocumentSource):
    """JSON lines, one document per line. See `open_documents`."""

    def __init__(
        self,
        path: Path,
        compression: str = "",
        columns: Columns | None = None,
        *,
        name: str | None = None,
        opener: Opener | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            path: The file; `-` is standard input.
            compression: "", "gzip" or "zstd".
            columns: The fields that make a document.
            name: What messages call the file; None for its path.
            opener: Opens it, if it does not lie at `path` on this machine.
        """
        super().__init__(path)
        self._compression = compression
        self._columns = columns or Columns()
        self._name = name or ("standard input" if path == STDIN else str(path))
        self._remote = opener is not None
        self._open = opener or (open_stdin if path == STDIN else lambda: path.open("rb"))

    @property
    def count(self) -> None:
        """Not known."""
        return None

    @property
    def size(self) -> int | None:
        """Bytes of the file, compressed if it is."""
        return self.path.stat().st_size if is_repeatable(self.path) else None

    def check(self) -> None:
        """See `DocumentSource.check`."""
        if is_repeatable(self.path):
            fields = _Fields(self._columns, self._name)
            # A file that breaks here is for `scan` to report, after what can be read of it.
            with contextlib.suppress(SourceBroken):
                for _, _, line in islice(self._lines(), _FIRST):
                    if fields.known:
                        return
                    fields.add(line)
                fields.end()

    def scan(self, skip: Container[int] = frozenset()) -> Iterator[Located]:
        """See `DocumentSource.scan`; documents that are skipped are not parsed."""
        fields = _Fields(self._columns, self._name)
        # A pipe could not be looked at before, and files of a data set differ in their fields.
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
        kind = {"": "jsonl", "gzip": "jsonl.gz", "zstd": "jsonl.zst"}[self._compression]
        identity = file_identity(self.path, kind)
        return identity and identity | self._columns.identity()

    def _lines(self) -> Iterator[_Line]:
        """The lines that are not blank."""
        number = 0
        try:
            with self._open() as raw:
                seekable = raw.seekable()
                for number, line in enumerate(decompressed(raw, self._compression), start=1):
                    if line.strip():
                        yield number, raw.tell() if seekable else 0, line
        except (OSError, EOFError, zlib.error) as error:
            raise source_broken(self._name, f"line {number + 1}", error) from error

    def _parse(self, line: bytes, number: int) -> Document | Failure:
        columns, document_id, field = self._columns, str(number), ""
        try:
            record = _record(line)
            if columns.id is not None:
                field = "id"
                value = record.get(columns.id)
                document_id = parse_id(value, name=columns.id, default=document_id)
            field = "text"
            if columns.text not in record:
                raise ValueError(f"no `{columns.text}`; there are: {', '.join(record) or 'none'}")
            text = record[columns.text]
            if not isinstance(text, str):
                raise ValueError(f"`{columns.text}` is a string, not {json_type(text)}")
            return Document(document_id, text)
        except ValueError as error:
            message = f"{self._name}, line {number}: {error}"
            return Failure(document_id, "INVALID_ARGUMENT", message, field)


class _Fields:
    """Looks for the fields that were named in the first lines.

    Attributes:
        known: Whether nothing is left to find out.
    """

    def __init__(self, columns: Columns, name: str) -> None:
        self.known = False
        self._columns = columns
        self._name = name
        self._found: dict[str, None] = {}
        self._lines = 0

    def add(self, line: bytes) -> None:
        """Take note of one more line.

        Raises:
            UnsupportedInput: it is the last of those that could have had the fields.
        """
        if not self._lines and (line.strip() == b"[" or line.lstrip().startswith(b"[{")):
            raise UnsupportedInput(
                f"{self._name} is one JSON array; write one object per line (`jq -c '.[]'`)"
            )
        # A line that is no record is a failure of that document.
        with suppress(ValueError):
            self._found.update(dict.fromkeys(_record(line)))
        self._lines += 1
        self.known = missing_columns(self._columns, self._found) is None
        if self._lines == _FIRST:
            self.end()

    def end(self) -> None:
        """There are no more lines to look at.

        Raises:
            UnsupportedInput: there are records, and none has the fields.
        """
        missing = missing_columns(self._columns, self._found)
        if missing and self._found:
            of = f"its {self._lines}" if self._lines < _FIRST else f"the first {_FIRST}"
            raise UnsupportedInput(f"{self._name}, {of} documents: {missing}")
        self.known = True


def _record(line: bytes) -> dict[str, Any]:
    """The JSON object on a line.

    Raises:
        ValueError: there is none; the message says why.
    """
    try:
        record = json.loads(decode(line))
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not a document: JSON nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError(f"a JSON object is wanted, not {json_type(record)}")
    return record
