"""What a worker of a job does: from files of documents to files of results.

A row's `files` names files of documents. Steps are for `Dataset.map_batches`, and return the batch.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from actvec.client.errors import StampChanged
from actvec.client.extras import import_extra
from actvec.client.records.differences import differences
from actvec.ray.documents import CONTENT
from actvec.ray.folders import DOCUMENTS, RESULTS, SUMS, VECTORS, Tables
from actvec.ray.means import PartialMeans
from actvec.ray.vectors import ActivationVectors

if TYPE_CHECKING:
    import pyarrow as pa


class FileVectors:
    """Turns each file of documents into a file of vectors.

    Args:
        place: The job's folder.
        stamp: The stamp of the job's vectors so far; None if it has none yet.
        **options: Options of `ActivationVectors`.

    Raises:
        Exception: whatever `ActivationVectors` raises.
    """

    def __init__(self, *, place: str, stamp: Mapping[str, Any] | None, **options: Any) -> None:
        self._tables = Tables(place)
        self._place = place
        self._stamp = stamp
        self._make = ActivationVectors(**options)

    def __call__(self, batch: "pa.Table") -> "pa.Table":
        """Write the vectors of a batch's files.

        Raises:
            StampChanged: they would be other vectors than those in the folder.
            RequestError: a document's column is taken.
            Exception: whatever the store's package raises.
        """
        made_here = self._make.stamp.to_dict()
        if self._stamp and (reasons := differences(self._stamp, made_here)):
            raise StampChanged(
                f"this worker makes other vectors than those in {self._place}: {reasons}. Continue"
                " with the same model and mean, or give another folder"
            )
        for files in batch["files"].to_pylist():
            for name in files:
                documents = self._tables.read(f"{DOCUMENTS}/{name}")
                made = self._make(documents).drop_columns(list(CONTENT))
                # First, for the count of failed documents: a file of vectors is what counts.
                self._tables.write(f"{RESULTS}/{name}", made.drop_columns(["vector"]))
                self._tables.write(f"{VECTORS}/{name}", made)
        return batch


class FileSums:
    """Sums the files of each part into a file under the name of the first.

    Args:
        place: The job's folder.
        **options: Options of `PartialMeans`.

    Raises:
        Exception: whatever `PartialMeans` raises.
    """

    def __init__(self, *, place: str, **options: Any) -> None:
        self._tables = Tables(place)
        self._make = PartialMeans(**options)

    def __call__(self, batch: "pa.Table") -> "pa.Table":
        """Write the sums of a batch's parts.

        Raises:
            DoesNotFitError: a document does not fit memory.
            EngineError: the engine failed.
            Exception: whatever the store's package raises.
        """
        pa = import_extra("pyarrow", "ray")
        for files in batch["files"].to_pylist():
            documents = [self._tables.read(f"{DOCUMENTS}/{name}") for name in files]
            self._tables.write(f"{SUMS}/{files[0]}", self._make(pa.concat_tables(documents)))
        return batch
