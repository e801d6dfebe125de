"""One file per document's vector."""

from collections.abc import Iterator
from pathlib import Path

from actvec.client.bulk.checksums import damaged
from actvec.client.bulk.sinks.sink import Row, Sink
from actvec.client.bulk.sinks.vector_folder import FILE_DTYPE, Dtype, VectorFolder
from actvec.client.errors import DataLoss
from actvec.client.files import Content, sync_folder
from actvec.client.records.vectors import Vector


class FileSink(Sink):
    """`activation_vector_<mode>_<name>.safetensors` and `..._metadata.json` per document.

    Suitable for some thousands of documents: each takes two files. See `VectorFolder`.

    Attributes:
        folder: The folder of the files.
        committed: See `Sink`.
    """

    committed: int = 0

    def __init__(
        self, folder: str | Path, *, dtype: Dtype = FILE_DTYPE, run: str | None = None
    ) -> None:
        """Open the folder; create it if it is missing.

        Args:
            folder: The folder to write to.
            dtype: dtype of the numbers in the files.
            run: Id of an interrupted run to continue. Default: a new run.

        Raises:
            OSError: the folder cannot be created or written to.
        """
        self._vectors = VectorFolder(folder, dtype=dtype, run=run)
        self.folder = self._vectors.path
        self._written = 0

    def rows(self) -> Iterator[Row]:
        """The vectors of this run in the folder. See `Sink.rows`.

        Reads each vector and checks it against the SHA-256 in its metadata.
        """
        damage: dict[Path, str] = {}
        for metadata in self._vectors.saved():
            try:
                row, path = Row.parse(metadata), self.folder / metadata["vector_file"]
                sha256 = Content.of(path).sha256
            except FileNotFoundError:
                damage[path] = "is missing"
            except (ValueError, LookupError, TypeError) as error:
                raise DataLoss(
                    f"the metadata of {metadata.get('vector_file')} in {self.folder} were altered:"
                    f" {error}"
                ) from error
            else:
                if sha256 == metadata.get("vector_file_sha256"):
                    yield row
                else:
                    damage[path] = (
                        f"has {path.stat().st_size:,} bytes and another SHA-256 than its metadata"
                        " say"
                    )
        if damage:
            raise damaged(
                damage,
                "Restore it from a copy; or remove its metadata (_metadata.json) and resume, and"
                " its document is computed again",
            )

    def write(self, vector: Vector) -> None:
        """Write a vector and its metadata, each atomically. See `Sink.write`."""
        self._vectors.save(vector)
        self._written += 1

    def commit(self) -> None:
        """See `Sink.commit`."""
        sync_folder(self.folder)
        self.committed = self._written
