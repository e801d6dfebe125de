"""A Parquet file with a `text` column, a document a row."""

from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actvec.client.documents.source import (
    DocumentSource,
    Located,
    file_identity,
    parse_id,
    source_broken,
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

    def __init__(self, path: Path) -> None:
        """Read the file's footer.

        Raises:
            UnsupportedInput: it is no Parquet file, or has no column of texts.
            MissingExtra: pyarrow is not installed.
        """
        super().__init__(path)
        with _open(path) as file:
            self._columns = _columns(file.schema_arrow, path)
            # Bytes of the texts of each row group, and its rows.
            self._groups = [_group(file, number) for number in range(file.num_row_groups)]

    @property
    def count(self) -> int:
        """The number of rows."""
        return sum(rows for rows, _ in self._groups)

    @property
    def size(self) -> int:
        """Bytes of the texts, as they are encoded in the file."""
        return sum(size for _, size in self._groups)

    def scan(self, skip: Container[int] = frozenset()) -> Iterator[Located]:
        """See `DocumentSource.scan`; row groups are read in pieces, never whole."""
        index = end = 0
        try:
            with _open(self.path) as file:
                for number, (rows, size) in enumerate(self._groups):
                    begin, first = end, index
                    for batch in file.iter_batches(_ROWS, [number], self._columns):
                        for row in range(batch.num_rows):
                            end = begin + size * (index + 1 - first) // rows
                            if index not in skip:
                                yield Located(index, end, self._parse(batch, row, index))
                            index += 1
        except (OSError, ValueError, _arrow_exception(), UnsupportedInput) as error:
            raise source_broken(self.path, f"row {index + 1}", error) from error

    def identity(self) -> dict[str, Any] | None:
        """See `DocumentSource.identity`."""
        return file_identity(self.path, "parquet")

    def _parse(self, batch: "pa.RecordBatch", row: int, index: int) -> Document | Failure:
        document_id, field = str(index + 1), "id"
        try:
            if "id" in self._columns:
                document_id = parse_id(batch.column("id")[row].as_py(), default=document_id)
            field = "text"
            text = batch.column("text")[row].as_py()
            if text is None:
                raise ValueError("`text` is null")
            return Document(document_id, text)
        except UnicodeDecodeError as error:
            reason = f"not UTF-8: {error.reason} at byte {error.start}"
        except ValueError as error:
            reason = str(error)
        message = f"{self.path}, row {index + 1}: {reason}"
        return Failure(document_id, "INVALID_ARGUMENT", message, field)


def _open(path: Path) -> "pq.ParquetFile":
    try:
        return import_extra("pyarrow.parquet", "data").ParquetFile(
            path, buffer_size=_READ_BYTES, pre_buffer=False
        )
    except (OSError, ValueError, _arrow_exception()) as error:
        raise UnsupportedInput(f"cannot read {path}: {error}") from error


def _arrow_exception() -> type[Exception]:
    """What pyarrow's own errors are of, be they `ValueError`s or not."""
    kind: type[Exception] = import_extra("pyarrow", "data").ArrowException
    return kind


def _columns(schema: "pa.Schema", path: Path) -> list[str]:
    """The columns to read."""
    kinds = import_extra("pyarrow.types", "data")
    columns = []
    for name, fits, wanted in (
        ("text", _is_text, "strings"),
        ("id", lambda kind: _is_text(kind) or kinds.is_integer(kind), "strings or integers"),
    ):
        found = schema.get_all_field_indices(name)
        if len(found) > 1:
            raise UnsupportedInput(f"{path} has {len(found)} columns `{name}`; rename all but one")
        if not found:
            continue
        kind = schema.field(found[0]).type
        if not fits(kind):
            raise UnsupportedInput(f"{path}: the column `{name}` holds {kind}, not {wanted}")
        columns.append(name)
    if "text" not in columns:
        raise UnsupportedInput(
            f"{path} has no column `text`, but {', '.join(schema.names)}; rename the one that"
            " holds the texts"
        )
    return columns


def _is_text(kind: "pa.DataType") -> bool:
    kinds = import_extra("pyarrow.types", "data")
    if kinds.is_dictionary(kind):
        kind = kind.value_type
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def _group(file: "pq.ParquetFile", number: int) -> tuple[int, int]:
    """The rows of a row group and the bytes of their texts."""
    group = file.metadata.row_group(number)
    columns = (group.column(at) for at in range(group.num_columns))
    size = sum(c.total_compressed_size for c in columns if c.path_in_schema == "text")
    return group.num_rows, size
