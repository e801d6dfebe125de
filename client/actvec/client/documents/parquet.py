"""A Parquet file with a column of texts, one document per row."""

from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actvec.client.documents.opening import Opener, source_broken
from actvec.client.documents.source import (
    SPANS,
    Columns,
    DocumentSource,
    Located,
    file_identity,
    missing_columns,
    parse_document,
)
from actvec.client.errors import UnsupportedInput
from actvec.client.extras import import_extra
from actvec.client.records.vectors import Document, Failure

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# Rows decoded at a time, and bytes read at a time: a row group may hold any number of either.
_ROWS = 64
_READ_BYTES = 1 << 20

# Kinds of types, as `pyarrow.types` names them. A column without a value has the type null.
_TEXT = ("string", "large_string", "string_view")
_LIST = ("list", "large_list", "list_view", "fixed_size_list", "null")
_SCALAR = (*_TEXT, "boolean", "integer", "floating", "date", "time", "timestamp", "null")


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
            columns: The columns of a document.
            name: The file's name in messages; None for its path.
            opener: Opens the file, if it is not at `path` on this machine.

        Raises:
            UnsupportedInput: it is not a Parquet file.
            MissingExtra: pyarrow is not installed.
        """
        self._columns = columns or Columns()
        super().__init__(path, self._columns.keep)
        self._name = name or str(path)
        self._opener = opener
        with self._open() as file:
            # The reason why no row has a text, for example a missing column.
            self._problem = _problem(file.schema_arrow, self._columns)
            there = file.schema_arrow.names
            sources = _sources(file.schema_arrow, self._columns)
            others = (self._columns.id, SPANS, *self._columns.keep)
            found = (name for name in others if name is not None and name in there)
            # Each once: the column of a text or an id may be kept too.
            self._names = list(dict.fromkeys([*sources, *found]))
            groups = map(file.metadata.row_group, range(file.num_row_groups))
            # The rows of each row group, and their bytes. Those of a column are not asked for: if
            # its record is damaged, Arrow ends the process.
            self._groups = [(group.num_rows, group.total_byte_size) for group in groups]

    @property
    def count(self) -> int:
        """The number of rows."""
        return sum(rows for rows, _ in self._groups)

    @property
    def size(self) -> int:
        """Bytes of the row groups before compression."""
        return sum(size for _, size in self._groups)

    def check(self) -> None:
        """See `DocumentSource.check`."""
        if self._problem:
            raise UnsupportedInput(f"{self._name}: {self._problem}")

    def scan(self, skip: Container[int] = frozenset()) -> Iterator[Located]:
        """See `DocumentSource.scan`; reads row groups in pieces, never whole."""
        if self._problem:
            yield from (
                Located(index, 0, self._failure(index, self._problem))
                for index in range(self.count)
                if index not in skip
            )
            return
        index = end = 0
        try:
            with self._open() as file:
                for number, (rows, size) in enumerate(self._groups):
                    begin, first = end, index
                    for batch in file.iter_batches(_ROWS, [number], self._names):
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
        record = {}
        for name in self._names:
            try:
                record[name] = batch.column(name)[row].as_py()
            except UnicodeDecodeError as error:
                return self._failure(index, f"not UTF-8: {error.reason} at byte {error.start}")
            except (ValueError, OverflowError) as error:
                # Arrow's range of dates is wider than Python's.
                return self._failure(index, f"column {name!r}: {error}")
        where = f"{self._name}, row {index + 1}"
        return parse_document(record, self._columns, default_id=str(index + 1), where=where)

    def _failure(self, index: int, reason: str) -> Failure:
        message = f"{self._name}, row {index + 1}: {reason}"
        return Failure(str(index + 1), "INVALID_ARGUMENT", message, "text")

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
    """The base class of pyarrow's own errors; not all of them are `ValueError`s."""
    kind: type[Exception] = import_extra("pyarrow", "data").ArrowException
    return kind


def _problem(schema: "pa.Schema", columns: Columns) -> str | None:
    """Explain why the columns cannot be read; None if they can."""
    if missing := missing_columns(columns, schema.names):
        return missing
    checks = [
        *((name, *_wanted(name, columns)) for name in _sources(schema, columns)),
        (columns.id, (*_TEXT, "integer"), "strings or integers"),
        (SPANS, _LIST, "lists of spans"),
        *((name, _SCALAR, "strings, numbers, booleans or dates") for name in columns.keep),
    ]
    problems = (_mismatch(schema, *check) for check in checks)
    return next((problem for problem in problems if problem), None)


def _sources(schema: "pa.Schema", columns: Columns) -> list[str]:
    """The columns that may hold a document.

    After the first one, a column counts only if it has the right type: otherwise it has its name by
    chance.
    """
    names = [name for name in columns.sources() if name in schema.names]
    return [
        name
        for name in names
        if name == names[0] or not _mismatch(schema, name, *_wanted(name, columns))
    ]


def _wanted(source: str, columns: Columns) -> tuple[tuple[str, ...], str]:
    """The kinds of types that a column of documents may have, and the words for them."""
    if source == columns.text:
        return (*_TEXT, *_LIST), "strings, messages or token ids"
    return _LIST, "lists"


def _mismatch(
    schema: "pa.Schema", name: str | None, kinds: tuple[str, ...], wanted: str
) -> str | None:
    """Explain why a column does not hold one of these kinds; None if it does or is not there."""
    found = [] if name is None else schema.get_all_field_indices(name)
    if len(found) > 1:
        return f"it has {len(found)} columns {name!r}; rename all but one"
    if found and not _is_any(kind := schema.field(found[0]).type, kinds):
        return f"the column {name!r} holds {kind}, not {wanted}"
    return None


def _is_any(kind: "pa.DataType", names: tuple[str, ...]) -> bool:
    """Whether a type, or that of a dictionary's values, is of one of these kinds."""
    types = import_extra("pyarrow.types", "data")
    if types.is_dictionary(kind):
        kind = kind.value_type
    return any(getattr(types, f"is_{name}")(kind) for name in names)
