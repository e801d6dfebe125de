"""Jobs of a Ray cluster whose folder is in a store: from files of documents to files of results.

Ray's own checkpoint renames a file once its block is written, and an object store has no rename
that is whole or not at all. Here each file of documents has one file of results, under the same
name, so what is there says what is left.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actvec.client.bulk.remote import RemoteFolder, Store, open_store
from actvec.client.documents import DocumentSource
from actvec.client.errors import InvalidArgument
from actvec.client.extras import import_extra
from actvec.client.lock import locked
from actvec.ray.documents import CONTENT, UNREADABLE, begin_job, keep_documents
from actvec.ray.means import PartialMeans
from actvec.ray.vectors import ActivationVectors

if TYPE_CHECKING:
    import pyarrow as pa

_JOB, _ERRORS = "job.json", "errors.jsonl"
DOCUMENTS, VECTORS, RESULTS, SUMS = "documents", "vectors", "results", "sums"


@dataclass(frozen=True)
class StoreJob:
    """An open job in a store.

    Attributes:
        remote: Its folder; the copy has the list of unreadable documents.
        files: The names of the files of documents, in order.
        found: The names of all files that were there at the start.
    """

    remote: RemoteFolder
    files: list[str]
    found: set[str]

    def left(self, folder: str) -> list[str]:
        """The files of documents that have no file of this name in a folder."""
        return [name for name in self.files if f"{folder}/{name}" not in self.found]

    def tables(self, folder: str, files: list[str]) -> Iterator["pa.Table"]:
        """The tables in files of a folder, one at a time."""
        store = open_store(self.remote.url)
        return (_read(store, f"{folder}/{name}") for name in files)

    def remove(self) -> None:
        """Remove all files of the job."""
        found = self.remote.find()
        self.remote.know(dict.fromkeys(found, 1))
        self.remote.upload(dict.fromkeys(sorted(found)), last=True)

    def finish(self) -> None:
        """Upload the list of failed documents, or remove it if there is none."""
        there = (self.remote.copy / _ERRORS).exists()
        self.remote.know({_ERRORS: 1} if _ERRORS in self.found else {})
        self.remote.upload({_ERRORS: 2 if there else None}, last=True)


@contextmanager
def store_job(source: DocumentSource, url: str, options: Mapping[str, Any]) -> Iterator[StoreJob]:
    """Open the job of a source at a URL for this process alone, with its documents in the store.

    Raises:
        InvalidArgument: the URL is of no known store, or of the hub.
        FailedPrecondition: it holds another job.
        Aborted: another process runs the job.
        MissingExtra: the package that knows the store is not installed.
        OSError: the store cannot be read or written to.
    """
    remote = RemoteFolder(url)
    if remote.atomic:
        raise InvalidArgument(
            f"{url}: each file of each worker would be a commit; give a bucket, and copy it to the"
            " hub at the end",
            setting="out",
        )
    remote.copy.mkdir(parents=True, exist_ok=True)
    with remote.naming(), locked(remote.copy), remote.owned():
        found = remote.find()
        remote.download({_JOB, UNREADABLE} & found)
        begin_job(source, remote.copy, options)
        if UNREADABLE not in found:
            folder = keep_documents(source, remote.copy)
            files = sorted(f"{DOCUMENTS}/{path.name}" for path in folder.iterdir())
            # The last one says that all documents are there.
            remote.upload(dict.fromkeys([_JOB, *files, UNREADABLE], 1))
            shutil.rmtree(folder)
            found |= {*files}
        before = f"{DOCUMENTS}/"
        files = sorted(name.removeprefix(before) for name in found if name.startswith(before))
        yield StoreJob(remote, files, found)


class StoreVectors:
    """Turns files of documents into files of vectors, in a store; for `Dataset.map_batches`.

    A row's `file` names a file of documents. Its results without the vectors come first, for the
    count of failed documents, and the vectors last.

    Args:
        url: The job's folder.
        **options: Options of `ActivationVectors`.

    Raises:
        Exception: whatever `ActivationVectors` raises.
    """

    def __init__(self, *, url: str, **options: Any) -> None:
        self._store = open_store(url)
        self._make = ActivationVectors(**options)

    def __call__(self, batch: "pa.Table") -> "pa.Table":
        """Write the vectors of a batch's files, and return the batch.

        Raises:
            RequestError: a document's column is taken.
            Exception: whatever the store's package raises.
        """
        for name in batch["file"].to_pylist():
            made = self._make(_read(self._store, f"{DOCUMENTS}/{name}")).drop_columns(list(CONTENT))
            results = made.drop_columns(["vector"])
            _write(self._store, {f"{RESULTS}/{name}": results, f"{VECTORS}/{name}": made})
        return batch


class StoreSums:
    """Sums files of documents into files of sums, in a store; for `Dataset.map_batches`.

    A row's `files` names the files of one part, whose sums are under the name of the first.

    Args:
        url: The job's folder.
        **options: Options of `PartialMeans`.

    Raises:
        Exception: whatever `PartialMeans` raises.
    """

    def __init__(self, *, url: str, **options: Any) -> None:
        self._store = open_store(url)
        self._make = PartialMeans(**options)

    def __call__(self, batch: "pa.Table") -> "pa.Table":
        """Write the parts of a batch, and return the batch.

        Raises:
            DoesNotFitError: a document does not fit memory.
            EngineError: the engine failed.
            Exception: whatever the store's package raises.
        """
        pa = import_extra("pyarrow", "ray")
        for files in batch["files"].to_pylist():
            tables = [_read(self._store, f"{DOCUMENTS}/{name}") for name in files]
            _write(self._store, {f"{SUMS}/{files[0]}": self._make(pa.concat_tables(tables))})
        return batch


def _read(store: Store, name: str) -> "pa.Table":
    pq = import_extra("pyarrow.parquet", "ray")
    with tempfile.TemporaryDirectory(prefix="actvec-") as folder:
        path = Path(folder, "file.parquet")
        store.get(name, path)
        table: pa.Table = pq.read_table(path, memory_map=False)
        return table


def _write(store: Store, tables: Mapping[str, "pa.Table"]) -> None:
    pq = import_extra("pyarrow.parquet", "ray")
    with tempfile.TemporaryDirectory(prefix="actvec-") as folder:
        files: dict[str, Path | None] = {}
        for number, (name, table) in enumerate(tables.items()):
            files[name] = path = Path(folder, f"{number}.parquet")
            pq.write_table(table, path)
        store.change(files)
