"""Vectors in Parquet files, for pandas, polars and DuckDB."""

import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from actvec.client.bulk.numbered import ROWS_PER_FILE, NumberedSink
from actvec.client.bulk.sink import Row
from actvec.client.errors import DataLoss
from actvec.client.extras import import_extra
from actvec.client.files import FILE_DTYPE, Dtype
from actvec.client.whole import whole_file

_STAMP = b"actvec.stamp"


class ParquetSink(NumberedSink):
    """`part-00000.parquet` and so on: the fields of `Row`, and `vector`.

    `vector` is a list of fixed size, `K * D` numbers of `dtype`. The stamp is in the schema's
    metadata, as JSON under `actvec.stamp`.
    """

    _complete = re.compile(r"part-(\d{5,})\.parquet")

    def __init__(
        self,
        folder: str | Path,
        *,
        rows_per_file: int = ROWS_PER_FILE,
        dtype: Dtype = FILE_DTYPE,
        resume: bool = False,
    ) -> None:
        """See `NumberedSink`.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        self._pa = import_extra("pyarrow", "data")
        self._pq = import_extra("pyarrow.parquet", "data")
        super().__init__(folder, rows_per_file=rows_per_file, dtype=dtype, resume=resume)

    def _write(
        self, number: int, rows: list[Row], values: NDArray[Any], stamp: dict[str, Any]
    ) -> None:
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
            ]
        )
        numbers = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        table = (
            pa.Table.from_pylist([asdict(row) for row in rows], schema)
            .append_column("vector", numbers)
            .replace_schema_metadata({_STAMP: json.dumps(stamp)})
        )
        with whole_file(self._path(number)) as temporary:
            # Activations neither repeat nor compress; to try would cost time for nothing.
            pq.write_table(table, temporary, use_dictionary=False, compression="none")

    def _read(self, number: int) -> tuple[list[Row], dict[str, Any]]:
        path = self._path(number)
        try:
            with self._pq.ParquetFile(path) as file:
                columns = [field.name for field in fields(Row)]
                rows = [Row.parse(record) for record in file.read(columns).to_pylist()]
                return rows, json.loads(file.schema_arrow.metadata[_STAMP])
        except (OSError, ValueError, LookupError, TypeError, self._pa.ArrowException) as error:
            raise DataLoss(f"{path} cannot be read: {error}") from error

    def _read_values(self, number: int) -> NDArray[Any]:
        vectors = self._pq.read_table(self._path(number), columns=["vector"])["vector"]
        numbers: NDArray[Any] = vectors.combine_chunks().flatten().to_numpy()
        return numbers.reshape(len(vectors), -1)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"
