"""A Parquet file with a column of texts, one document per row."""

from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actvec.client.documents.opening import Opener, source_broken
from actvec.client.documents.source import (
    Columns,
    DocumentSource,
    Located,
    file_identity,
    missing_columns,
    parse_id,
)
from actvec.client.errors import UnsupportedInput
from actvec.client.extras import import_extra
from actvec.client.vectors import Document, Failure

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# Rows decoded at a time, and bytes read at a time: a row group may hold any number of either.
_ROWS = 64
_READ_BYTES = 1 << 20


class ParquetSource(DocumentSource):
    """The rows of a Parquet file. See `open_documents`."""

    def __init__(
        self,
        path: Path,
        columns: Columns | None = None,
        *,
        name: str | None = None,
        opener: Opener | None = None,
    ) -> None:
        """Read the file's footer.

        Args:
            path: The file.
            columns: The columns that make a document.
            name: What messages call the file; None for its path.
            opener: Opens it, if it does not lie at `path` on this machine.

        Raises:
            UnsupportedInput: it is no Parquet file.
            MissingExtra: pyarrow is not installed.
        """
        super().__init__(path)
        self._columns = columns or Columns()
        self._name = name or str(path)
        self._opener = opener
        with self._open() as file:
            # Why no row has a text: the file has no such column.
            self._problem = _problem(file.schema_arrow, self._columns)
            self._has_id = self._columns.id in file.schema_arrow.names
            # Bytes of the texts of each row group, and its rows.
            self._groups = [
                _group(file, number, self._columns.text) for number in range(file.num_row_groups)
            ]

    @property
    def count(self) -> int:
        """The number of rows."""
        return sum(rows for rows, _ in self._groups)

    @property
    def size(self) -> int:
        """Bytes of the texts, as they are encoded in the file."""
        return sum(size for _, size in self._groups)

    def check(self) -> None:
        """See `DocumentSource.check`."""
        if self._problem:
            raise UnsupportedInput(f"{self._name}: {self._problem}")

    def scan(self, skip: Container[int] = frozenset()) -> Iterator[Located]:
        """See `DocumentSource.scan`; row groups are read in pieces, never whole."""
        if self._problem:
            yield from (
                Located(index, 0, self._failure(str(index + 1), index, self._problem, "text"))
                for index in range(self.count)
                if index not in skip
            )
            return
        names = [self._columns.text, *([self._columns.id] if self._has_id else [])]
        index = end = 0
        try:
            with self._open() as file:
                for number, (rows, size) in enumerate(self._groups):
                    begin, first = end, index
                    for batch in file.iter_batches(_ROWS, [number], names):
                        for row in range(batch.num_rows):
                            end = begin + size * (index + 1 - first) // rows
                            if index not in skip:
                                yield Located(index, end, self._parse(batch, row, index))
                            index += 1
        except (OSError, ValueError, _arrow_exception(), UnsupportedInput) as error:
            raise source_broken(self._name, f"row {index + 1}", error) from error

    def identity(self) -> dict[str, Any] | None:
        """See `DocumentSource.identity`."""
        identity = file_identity(self.path, "parquet")
        return identity and identity | self._columns.identity()

    def _parse(self, batch: "pa.RecordBatch", row: int, index: int) -> Document | Failure:
        columns, document_id, field = self._columns, str(index + 1), "id"
        try:
            if self._has_id and columns.id is not None:
                value = batch.column(columns.id)[row].as_py()
                document_id = parse_id(value, name=columns.id, default=document_id)
            field = "text"
            text = batch.column(columns.text)[row].as_py()
            if text is None:
                raise ValueError(f"`{columns.text}` is null")
            return Document(document_id, text)
        except UnicodeDecodeError as error:
            reason = f"not UTF-8: {error.reason} at byte {error.start}"
        except ValueError as error:
            reason = str(error)
        return self._failure(document_id, index, reason, field)

    def _failure(self, document_id: str, index: int, reason: str, field: str) -> Failure:
        message = f"{self._name}, row {index + 1}: {reason}"
        return Failure(document_id, "INVALID_ARGUMENT", message, field)

    def _open(self) -> "pq.ParquetFile":
        module = import_extra("pyarrow.parquet", "data")
        try:
            file = self._opener() if self._opener else self.path
            return module.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False)
        except (OSError, ValueError, _arrow_exception()) as error:
            if self._opener is None:
                raise UnsupportedInput(f"cannot read {self._name}: {error}") from error
            raise source_broken(self._name, "its footer", error) from error


def _arrow_exception() -> type[Exception]:
    """What pyarrow's own errors are of, be they `ValueError`s or not."""
    kind: type[Exception] = import_extra("pyarrow", "data").ArrowException
    return kind


def _problem(schema: "pa.Schema", columns: Columns) -> str | None:
    """Why the columns cannot be read; None if they can."""
    if missing := missing_columns(columns, schema.names):
        return missing
    kinds = import_extra("pyarrow.types", "data")
    for name, fits, wanted in (
        (columns.text, _is_text, "strings"),
        (columns.id, lambda kind: _is_text(kind) or kinds.is_integer(kind), "strings or integers"),
    ):
        found = [] if name is None else schema.get_all_field_indices(name)
        if len(found) > 1:
            return f"it has {len(found)} columns {name!r}; rename all but one"
        if found and not fits(kind := schema.field(found[0]).type):
            return f"the column {name!r} holds {kind}, not {wanted}"
    return None


def _is_text(kind: "pa.DataType") -> bool:
    kinds = import_extra("pyarrow.types", "data")
    if kinds.is_dictionary(kind):
        kind = kind.value_type
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def _group(file: "pq.ParquetFile", number: int, name: str) -> tuple[int, int]:
    """The rows of a row group and the bytes of their texts."""
    group = file.metadata.row_group(number)
    columns = (group.column(at) for at in range(group.num_columns))
    size = sum(c.total_compressed_size for c in columns if c.path_in_schema == name)
    return group.num_rows, size
