"""A file of its own for each document's vector."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from actvec.client.bulk.sink import Row
from actvec.client.errors import DataLoss
from actvec.client.files import FILE_DTYPE, Dtype, VectorFolder
from actvec.client.vectors import Vector
from actvec.client.whole import sync_folder


class FileSink:
    """`activation_vector_<mode>_<name>.safetensors` and `..._metadata.json` a document.

    For some thousands of documents: each costs two files. See `VectorFolder`.

    Attributes:
        folder: Where the files are.
    """

    def __init__(
        self, folder: str | Path, *, dtype: Dtype = FILE_DTYPE, run: str | None = None
    ) -> None:
        """Create the folder where it is missing.

        Args:
            folder: Where to write.
            dtype: dtype of the numbers in the files.
            run: Names the run, where it goes on with one that was cut short. Default: a new one.

        Raises:
            OSError: the folder cannot be created or written to.
        """
        self._vectors = VectorFolder(folder, dtype=dtype, run=run)
        self.folder = self._vectors.path

    def rows(self) -> Iterator[Row]:
        """The vectors of this run that are there. See `Sink.rows`."""
        for metadata in self._vectors.saved():
            try:
                yield Row.parse(metadata)
            except ValueError as error:
                raise DataLoss(
                    f"the metadata of {metadata.get('vector_file')} in {self.folder} were altered:"
                    f" {error}"
                ) from error

    def write(self, vector: Vector) -> None:
        """Write a vector and its metadata, each whole. See `Sink.write`."""
        self._vectors.save(vector)

    def commit(self) -> None:
        """See `Sink.commit`."""
        sync_folder(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.commit()
