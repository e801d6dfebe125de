"""Vectors in Parquet files, for pandas, polars and DuckDB."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from actvec.client.bulk.sinks.kept_columns import OURS, VECTOR, ColumnTypes, check_names
from actvec.client.bulk.sinks.numbered_files import NumberedSink, rows_of
from actvec.client.bulk.sinks.sink import Row
from actvec.client.extras import import_extra
from actvec.client.records.vectors import Vector
from actvec.client.stored.parts import Part, damage, read_parquet

if TYPE_CHECKING:
    import pyarrow as pa


class ParquetSink(NumberedSink):
    """`part-00000.parquet` and so on: the fields of `Row`, the documents' columns, and `vector`.

    Each column of the documents becomes a column with one type in all files, from `ColumnTypes`. If
    a later document needs a wider type, the sink rewrites the earlier files. `vector` is a list of
    fixed size, `L * K * D` numbers of `dtype`. The schema's metadata hold, as JSON, the stamp
    (`actvec.stamp`) and the shape `[L, K, D]` of a vector (`actvec.shape`).
    """

    _complete = re.compile(r"part-(\d{5,})\.parquet")

    def _prepare(self) -> None:
        self._types = ColumnTypes()
        # The types in all files.
        self._unified: dict[str, pa.DataType] = {}

    def write(self, vector: Vector) -> None:
        """See `Sink.write`.

        Raises:
            InvalidArgument: a column of the document has the name of one of ours.
        """
        check_names(vector.columns)
        super().write(vector)

    def _continue_after(self, last: int) -> None:
        super()._continue_after(last)
        for number in range(last + 1):
            for name, kind in self._kept(number).items():
                self._types.widen(name, kind)
        # A kill may have left some files without a widened type.
        self._unify(last + 1)

    def _write(self, number: int, rows: list[Row], values: NDArray[Any]) -> None:
        self._types.add(row.columns for row in rows)
        self._unify(number)
        self._write_table(number, rows, values)

    def _unify(self, files: int) -> None:
        """Rewrite those of the first files whose columns have narrower types."""
        if self._types.types == self._unified:
            return
        for number in range(files):
            if self._kept(number) != self._types.types:
                part = self._part(number)
                self._write_table(number, rows_of(part), part.read())
        self._unified = dict(self._types.types)

    def _kept(self, number: int) -> dict[str, "pa.DataType"]:
        """Read the types of the documents' columns in a file.

        Raises:
            DataLoss: it is damaged.
        """
        path = self._path(number)
        with damage(path):
            schema = import_extra("pyarrow.parquet", "data").read_schema(path)
            return {field.name: field.type for field in schema if field.name not in OURS}

    def _write_table(self, number: int, rows: list[Row], values: NDArray[Any]) -> None:
        pa, pq = import_extra("pyarrow", "data"), import_extra("pyarrow.parquet", "data")
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
        table = pa.Table.from_pylist([row.to_dict() for row in rows], schema)
        for name in self._types.types:
            kept = self._types.array(name, [row.columns.get(name) for row in rows])
            table = table.append_column(name, kept)
        stamp, shape = self._stamp_and_shape
        table = table.append_column(VECTOR, numbers).replace_schema_metadata(
            {"actvec.stamp": json.dumps(stamp), "actvec.shape": json.dumps(shape)}
        )
        with self._whole_file(self._path(number)) as temporary:
            # Activations neither repeat nor compress; an attempt would only cost time.
            pq.write_table(table, temporary, use_dictionary=False, compression="none")

    def _part(self, number: int) -> Part:
        return read_parquet(self._path(number))

    def _paths(self, number: int) -> list[Path]:
        return [self._path(number)]

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"
