"""The exact merge of the parts of a corpus mean."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from actvec.client.bulk.remote import is_remote, write_file
from actvec.client.files import given_path, write_atomic
from actvec.client.messages.means import decode_mean
from actvec.client.records.means import CorpusMean
from actvec.pooling import MeanAccumulator
from actvec.server.errors import RequestError
from actvec.server.means.format import computed, decode
from actvec.server.means.merging import Merge
from actvec.server.means.naming import checked_name
from actvec.server.means.record import MeanRecord, SkippedDocuments, by_reason
from actvec.server.means.store import MeanStore
from actvec.server.service.mean_messages import mean_message


class PartMerger:
    """Merges parts as they arrive; memory holds one beside the sums.

    Args:
        name: The mean's name.

    Raises:
        InputError: the name is invalid.
    """

    def __init__(self, name: str) -> None:
        self._name = checked_name(name)
        self._merge = Merge()

    def add(self, file: bytes, skipped: Iterable[SkippedDocuments]) -> None:
        """Add a part, as `SumMaker.part` makes it: a file, or the skips of a part without one.

        Raises:
            InputError: the file is not one of a mean.
            MeanMismatchError: it is of another model or other settings than earlier parts, or of
                the same documents as one of them.
        """
        if file:
            part = decode(file)
            self._merge.add(part.record, part)
        else:
            self._merge.skip(skipped)

    def add_shard(self, means: Path, record: Mapping[str, Any]) -> bool:
        """Add the mean of a shard from the folder of its means; False if it is not there.

        Args:
            means: The folder.
            record: The record that `sum_shard` returned. One of 0 documents adds only its skips.

        Raises:
            MeanMismatchError: as `add`.
            MeanCorruptError: the file was altered.
        """
        if not record["documents"]:
            self._merge.skip(SkippedDocuments(**one) for one in record["skipped"])
            return True
        store = MeanStore(means)
        found = next((one for one in store.records() if one.id == record["id"]), None)
        if found is not None:
            self._merge.add(found, store.load(found))
        return found is not None

    def sums(self) -> tuple[MeanAccumulator, MeanRecord]:
        """Return the sums of all parts, and the start of their record.

        Raises:
            RequestError: no document is usable.
        """
        if self._merge.total is None:
            why = "; ".join(describe_skipped(self._merge.skipped))
            raise RequestError("corpus", f"has no document to average: {why}")
        return self._merge.total, self._merge.record(self._name)

    def write(self, to: str | Path, setting: str) -> CorpusMean:
        """Write the file of the mean, or one at a URL, whole or not at all; return its record.

        Args:
            to: The safetensors file to write, or its URL.
            setting: The argument that gave it, for errors.

        Raises:
            RequestError: no document is usable.
            InvalidArgument: the URL is of no known store, or names no file.
            MissingExtra: the package that knows the store is not installed.
            OSError: the file cannot be written.
        """
        content, record = computed(*self.sums())
        if is_remote(to):
            write_file(str(to), content, setting)
        else:
            path = given_path(to)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
        return decode_mean(mean_message(record))


def describe_skipped(skipped: Iterable[SkippedDocuments]) -> list[str]:
    """Describe skipped documents, one line per reason."""
    return [
        f"skipped for {one.reason}: {one.documents:,}; the first is {one.first_id}:"
        f" {one.first_message}"
        for one in by_reason(skipped)
    ]
