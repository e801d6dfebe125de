"""The file layout of a job's vectors."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from actvec.client.bulk.checksums import Checksums
from actvec.client.bulk.sinks.kept_columns import check_names
from actvec.client.bulk.sinks.numbered_files import NumberedSink, check_rows_per_file
from actvec.client.bulk.sinks.parquet import ParquetSink
from actvec.client.bulk.sinks.shards import ShardSink
from actvec.client.bulk.sinks.single_files import FileSink
from actvec.client.bulk.sinks.sink import FILE_DTYPE, Dtype, Sink
from actvec.client.records.settings import check_known

Format = Literal["files", "shards", "parquet"]


@dataclass(frozen=True)
class Layout:
    """How to store vectors on disk.

    Attributes:
        format: `files` (one safetensors file per document), `shards` (safetensors files of many
            rows, with an index) or `parquet`.
        dtype: dtype of the numbers.
        rows_per_file: Vectors per shard or Parquet file. None for `ROWS_PER_FILE`, or fewer if they
            would exceed 1 GiB.

    Raises:
        ValueError: the format or dtype is unknown, or `rows_per_file` is out of range.
    """

    format: Format = "files"
    dtype: Dtype = FILE_DTYPE
    rows_per_file: int | None = None

    def __post_init__(self) -> None:
        check_known("format", self.format, get_args(Format))
        check_known("dtype", self.dtype, get_args(Dtype))
        if self.rows_per_file is not None:
            check_rows_per_file(self.rows_per_file)

    def check_columns(self, names: Collection[str]) -> None:
        """Check that the layout can store columns with these names.

        Raises:
            InvalidArgument: Parquet already has a column of such a name.
        """
        if self.format == "parquet":
            check_names(names)

    def open(self, folder: Path, *, run: str, resume: bool, checksums: Checksums) -> Sink:
        """Open the sink of a job's folder.

        Args:
            folder: The job's folder; Parquet files go to `vectors.parquet` in it.
            run: The job's run id.
            resume: Whether to continue after the vectors in the folder.
            checksums: Checksums of files of many vectors; a file of one has its own in its
                metadata.

        Raises:
            MissingExtra: Parquet needs pyarrow, which is not installed.
            FailedPrecondition: the folder holds vectors, and `resume` is false.
            DataLoss: a file is damaged or missing.
            OSError: the folder cannot be created, read or written to.
        """
        if self.format == "files":
            return FileSink(folder, dtype=self.dtype, run=run)
        shards = self.format == "shards"
        kind: type[NumberedSink] = ShardSink if shards else ParquetSink
        place = folder if shards else folder / "vectors.parquet"
        return kind(
            place,
            rows_per_file=self.rows_per_file,
            dtype=self.dtype,
            resume=resume,
            checksums=checksums,
        )
