"""Vectors in Parquet files, for pandas, polars and DuckDB."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from actvec.client.bulk.checksums import Checksums
from actvec.client.bulk.sinks.kept_columns import OURS, VECTOR, ColumnTypes, check_names
from actvec.client.bulk.sinks.numbered_files import FileRows, NumberedSink
from actvec.client.bulk.sinks.sink import Row
from actvec.client.bulk.sinks.vector_folder import FILE_DTYPE, Dtype
from actvec.client.errors import DataLoss
from actvec.client.extras import import_extra
from actvec.client.records.vectors import Vector

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_STAMP, _SHAPE = b"actvec.stamp", b"actvec.shape"


class ParquetSink(NumberedSink):
    """`part-00000.parquet` and so on: the fields of `Row`, the documents' columns, and `vector`.

    Each column of the documents becomes a column with one type in all files, from `ColumnTypes`. If
    a later document needs a wider type, the sink rewrites the earlier files. `vector` is a list of
    fixed size, `L * K * D` numbers of `dtype`. The schema's metadata hold, as JSON, the stamp
    (`actvec.stamp`) and the shape `[L, K, D]` of a vector (`actvec.shape`).
    """

    _complete = re.compile(r"part-(\d{5,})\.parquet")

    def __init__(
        self,
        folder: str | Path,
        *,
        rows_per_file: int | None = None,
        dtype: Dtype = FILE_DTYPE,
        resume: bool = False,
        checksums: Checksums | None = None,
    ) -> None:
        """See `NumberedSink`.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        self._pa = import_extra("pyarrow", "data")
        self._pq = import_extra("pyarrow.parquet", "data")
        self._types = ColumnTypes()
        # The types in all files.
        self._unified: dict[str, pa.DataType] = {}
        super().__init__(
            folder,
            rows_per_file=rows_per_file,
            dtype=dtype,
            resume=resume,
            checksums=checksums,
        )

    def write(self, vector: Vector) -> None:
        """See `Sink.write`.

        Raises:
            InvalidArgument: a column of the document has the name of one of ours.
        """
        check_names(vector.columns)
        super().write(vector)

    def _go_on_after(self, last: int) -> None:
        super()._go_on_after(last)
        for number in range(last + 1):
            for name, kind in self._kept(number).items():
                self._types.widen(name, kind)
        # A kill may have left some files without a widened type.
        self._unify(last + 1)

    def _write(self, number: int, content: FileRows, values: NDArray[Any]) -> None:
        self._types.add(row.columns for row in content.rows)
        self._unify(number)
        self._write_table(number, content, values)

    def _unify(self, files: int) -> None:
        """Rewrite those of the first files whose columns have narrower types."""
        if self._types.types == self._unified:
            return
        for number in range(files):
            if self._kept(number) != self._types.types:
                self._write_table(number, self._read(number), self._read_values(number))
        self._unified = dict(self._types.types)

    def _kept(self, number: int) -> dict[str, "pa.DataType"]:
        """Read the types of the documents' columns in a file.

        Raises:
            DataLoss: it is damaged.
        """
        with self._opened(number) as file:
            schema = file.schema_arrow
            return {field.name: field.type for field in schema if field.name not in OURS}

    @contextlib.contextmanager
    def _opened(self, number: int) -> "Iterator[pq.ParquetFile]":
        """Open a file for reading.

        Raises:
            DataLoss: it is damaged.
        """
        path = self._path(number)
        try:
            with self._pq.ParquetFile(path) as file:
                yield file
        except (OSError, ValueError, LookupError, TypeError, self._pa.ArrowException) as error:
            raise DataLoss(f"{path} cannot be read: {error}") from error

    def _write_table(self, number: int, content: FileRows, values: NDArray[Any]) -> None:
        pa, pq = self._pa, self._pq
        schema = pa.schema(
            [
                ("index", pa.int64()),
                ("id", pa.string()),
                ("tokens", pa.int32()),
                ("tokens_used", pa.int32()),
                ("truncated", pa.bool_()),
                ("smallest_count", pa.int64()),
                ("text_sha256", pa.string()),
                ("source", pa.string()),
                ("bos", pa.bool_()),
            ]
        )
        numbers = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        table = pa.Table.from_pylist([row.to_dict() for row in content.rows], schema)
        for name in self._types.types:
            kept = self._types.array(name, [row.columns.get(name) for row in content.rows])
            table = table.append_column(name, kept)
        table = table.append_column(VECTOR, numbers).replace_schema_metadata(
            {_STAMP: json.dumps(content.stamp), _SHAPE: json.dumps(content.shape)}
        )
        with self._whole_file(self._path(number)) as temporary:
            # Activations neither repeat nor compress; an attempt would only cost time.
            pq.write_table(table, temporary, use_dictionary=False, compression="none")

    def _read(self, number: int) -> FileRows:
        with self._opened(number) as file:
            schema = file.schema_arrow
            names = [name for name in schema.names if name != VECTOR]
            rows = [_row(record) for record in file.read(names).to_pylist()]
            metadata = schema.metadata
            # Files of an earlier version have no shape.
            width = schema.field(VECTOR).type.list_size
            shape = json.loads(metadata.get(_SHAPE, f"[{width}]"))
            return FileRows(rows, json.loads(metadata[_STAMP]), tuple(shape))

    def _read_values(self, number: int) -> NDArray[Any]:
        vectors = self._pq.read_table(self._path(number), columns=[VECTOR])[VECTOR]
        numbers: NDArray[Any] = vectors.combine_chunks().flatten().to_numpy()
        return numbers.reshape(len(vectors), -1)

    def _paths(self, number: int) -> list[Path]:
        return [self._path(number)]

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"


def _row(record: dict[str, Any]) -> Row:
    """Parse the entry in a row of a file; its further columns are the document's."""
    kept = {name: value for name, value in record.items() if name not in OURS}
    return Row.parse(record | {"columns": kept})
