"""Which files the vectors of a job go to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from actvec.client.bulk.numbered import ROWS_PER_FILE, NumberedSink, check_rows_per_file
from actvec.client.bulk.parquet import ParquetSink
from actvec.client.bulk.shards import ShardSink
from actvec.client.bulk.single import FileSink
from actvec.client.bulk.sink import Sink
from actvec.client.files import FILE_DTYPE, Dtype

Format = Literal["files", "shards", "parquet"]


@dataclass(frozen=True)
class Layout:
    """How vectors lie on disk.

    Attributes:
        format: `files` (a safetensors file a document), `shards` (safetensors files of many rows,
            with an index) or `parquet`.
        dtype: dtype of the numbers.
        rows_per_file: Vectors of a shard or of a Parquet file.

    Raises:
        ValueError: a format or dtype that does not exist, or a number of rows that no file has.
    """

    format: Format = "files"
    dtype: Dtype = FILE_DTYPE
    rows_per_file: int = ROWS_PER_FILE

    def __post_init__(self) -> None:
        for name, value, known in (
            ("format", self.format, get_args(Format)),
            ("dtype", self.dtype, get_args(Dtype)),
        ):
            if value not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r}")
        check_rows_per_file(self.rows_per_file)

    def open(self, folder: Path, *, run: str, resume: bool) -> Sink:
        """The sink of a job's folder.

        Args:
            folder: The folder of the job; Parquet files go to `vectors.parquet` in it.
            run: Names the job.
            resume: Whether it goes on with what is there.

        Raises:
            MissingExtra: Parquet needs pyarrow, which is not installed.
            FailedPrecondition: vectors are there, and it is not to go on after them.
            DataLoss: a file is damaged or missing.
            OSError: the folder cannot be created, read or written to.
        """
        if self.format == "files":
            return FileSink(folder, dtype=self.dtype, run=run)
        shards = self.format == "shards"
        kind: type[NumberedSink] = ShardSink if shards else ParquetSink
        place = folder if shards else folder / "vectors.parquet"
        return kind(place, rows_per_file=self.rows_per_file, dtype=self.dtype, resume=resume)
