"""The folder of a job on a cluster: on a disk that all workers share, or in a store.

Each file of documents has one file of results, under the same name, whole or not at all, so the
files that are there say what is left. Ray's own checkpoint would not do: it renames files, and an
object store has no rename that is whole or not at all.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actvec.client.bulk.failures import write_failures
from actvec.client.bulk.remote import RemoteFolder, is_remote, open_store
from actvec.client.documents import DocumentSource
from actvec.client.documents.opening import is_damage
from actvec.client.errors import DataLoss, InvalidArgument
from actvec.client.extras import import_extra
from actvec.client.files import atomic_file, given_path
from actvec.client.lock import locked
from actvec.client.records.vectors import Failure
from actvec.ray.documents import (
    JOB,
    UNREADABLE,
    begin_job,
    keep_documents,
    record_files,
    record_vectors,
)

if TYPE_CHECKING:
    import pyarrow as pa

_ERRORS = "errors.jsonl"
DOCUMENTS, VECTORS, RESULTS, SUMS = "documents", "vectors", "results", "sums"


class Tables:
    """The Parquet files of a job's folder.

    Args:
        place: The absolute path of the folder, or its URL.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._folder = Path(place)
        self._store = open_store(place) if is_remote(place) else None

    def read(self, name: str) -> "pa.Table":
        """Read a file.

        Raises:
            DataLoss: it is damaged or missing.
            OSError: it cannot be read.
            Exception: whatever the store's package raises.
        """
        if self._store is None:
            return self._table(self._folder / name, name)
        with tempfile.TemporaryDirectory(prefix="actvec-") as folder:
            path = Path(folder, "file.parquet")
            try:
                self._store.get(name, path)
            except FileNotFoundError as error:
                raise self._loss(name, error) from error
            return self._table(path, name)

    def _table(self, path: Path, name: str) -> "pa.Table":
        try:
            table: pa.Table = import_extra("pyarrow.parquet", "ray").read_table(
                path, memory_map=False
            )
        except (OSError, ValueError) as error:
            if not (isinstance(error, FileNotFoundError) or is_damage(error)):
                raise
            raise self._loss(name, error) from error
        return table

    def _loss(self, name: str, error: Exception) -> DataLoss:
        folder, _, file = name.partition("/")
        again = {
            DOCUMENTS: "begin again in another folder",
            RESULTS: f"remove {VECTORS}/{file} too, and run the same command again: its"
            " documents are computed again",
            SUMS: "remove it, and run the same command again: its documents are summed again",
        }
        return DataLoss(
            f"{self._place}/{name} cannot be read: {error}. Restore it from a copy, or"
            f" {again[folder]}"
        )

    def write(self, name: str, table: "pa.Table") -> None:
        """Write a file, whole or not at all.

        Raises:
            OSError: the disk is full, or similar.
            Exception: whatever the store's package raises.
        """
        pq = import_extra("pyarrow.parquet", "ray")
        if self._store is None:
            (self._folder / name).parent.mkdir(exist_ok=True)
            with atomic_file(self._folder / name) as path:
                pq.write_table(table, path)
            return
        with tempfile.TemporaryDirectory(prefix="actvec-") as folder:
            path = Path(folder, "file.parquet")
            pq.write_table(table, path)
            self._store.change({name: path})


@dataclass(frozen=True)
class JobFolder:
    """The open folder of a job.

    Attributes:
        place: Its absolute path, or its URL.
        copy: The folder, or the local copy of one in a store.
        found: The names of all its Parquet files at the start.
        remote: The folder in a store; None on a disk.
    """

    place: str
    copy: Path
    found: set[str]
    remote: RemoteFolder | None = None

    @property
    def files(self) -> list[str]:
        """The names of the files of documents, in order."""
        begin = f"{DOCUMENTS}/"
        return sorted(name.removeprefix(begin) for name in self.found if name.startswith(begin))

    def left(self, folder: str) -> list[str]:
        """The files of documents that have no file of this name in a folder."""
        return [name for name in self.files if f"{folder}/{name}" not in self.found]

    def tables(self, folder: str, files: Sequence[str]) -> Iterator["pa.Table"]:
        """The tables in files of a folder, one at a time."""
        tables = Tables(self.place)
        return (tables.read(f"{folder}/{name}") for name in files)

    def finish(self, vectors: int, failures: Sequence[Failure]) -> None:
        """Record the number of vectors, and list the failed documents, if there are any."""
        write_failures(self.copy / _ERRORS, failures)
        record_vectors(self.copy, vectors)
        if self.remote is not None:
            # There may be a list of an earlier run.
            self.remote.know({_ERRORS: 1, JOB: 1})
            self.remote.upload({_ERRORS: 2 if failures else None, JOB: 2}, last=True)

    def remove(self) -> None:
        """Remove all files of the job."""
        if self.remote is None:
            shutil.rmtree(self.copy)
            return
        found = self.remote.find()
        self.remote.know(dict.fromkeys(found, 1))
        self.remote.upload(dict.fromkeys(sorted(found)), last=True)


@contextmanager
def open_job(
    source: DocumentSource, place: str | Path, options: Mapping[str, Any]
) -> Iterator[JobFolder]:
    """Open the job of a source for this process alone, with its documents in the folder.

    Args:
        source: The documents.
        place: The job's folder, or its URL.
        options: Everything else that the results depend on.

    Raises:
        InvalidArgument: the URL is of no known store, or of the hub.
        FailedPrecondition: the folder holds another job.
        DataLoss: a file of documents is missing, or the job's record is damaged.
        Aborted: another process runs the job.
        MissingExtra: the package that knows the store is not installed.
        OSError: the folder cannot be read or written to.
    """
    if not is_remote(place):
        folder = given_path(place).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            begin_job(source, folder, options)
            keep_documents(source, folder)
            found = {path.relative_to(folder).as_posix() for path in folder.glob("*/*.parquet")}
            job = JobFolder(str(folder), folder, found)
            record_files(folder, job.files)
            yield job
        return
    remote = RemoteFolder(str(place))
    if remote.atomic:
        raise InvalidArgument(
            f"{place}: each file of each worker would be a commit; give a bucket, and copy it to"
            " the hub at the end",
            setting="out",
        )
    remote.copy.mkdir(parents=True, exist_ok=True)
    with remote.naming(), locked(remote.copy), remote.owned():
        found = remote.find()
        remote.download({JOB, UNREADABLE} & found)
        begin_job(source, remote.copy, options)
        if UNREADABLE not in found:
            folder = keep_documents(source, remote.copy)
            names = sorted(path.name for path in folder.iterdir())
            record_files(remote.copy, names)
            files = [f"{DOCUMENTS}/{name}" for name in names]
            # The last one says that all documents are there.
            remote.upload(dict.fromkeys([JOB, *files, UNREADABLE], 1))
            shutil.rmtree(folder)
            found |= {*files}
        job = JobFolder(remote.url, remote.copy, found, remote)
        record_files(remote.copy, job.files)
        yield job
