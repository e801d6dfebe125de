"""The store of means: a directory of safetensors files, each with its record beside it.

A mean is its two files: `ID.safetensors` and, written after it, `ID.json`, the record that the
contract answers with. A file without a record is no mean. The id is the beginning of the file's
SHA-256, so that one content has one id, and every load is checked against it.
"""

import contextlib
import hashlib
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from actvec.pooling import MeanAccumulator
from actvec.server.config import Limits
from actvec.server.errors import (
    MeanCorruptError,
    MeanMismatchError,
    MeanNotFoundError,
    RequestError,
    StorageError,
    StorageFullError,
)
from actvec.server.means.entry import Entry
from actvec.server.means.format import MeanTensors, decode, encode
from actvec.server.means.merging import merged, same_states
from actvec.server.means.replica import NO_REPLICA, Replica
from actvec.server.means.uploading import uploaded_record
from actvec.server.means.whole import remove_partial, storing, sync_directory, write_whole
from actvec.v1.means_pb2 import CorpusMean
from actvec.v1.vectors_pb2 import ModelStamp

log = logging.getLogger(__name__)

LATEST = "latest"
_ID_LENGTH = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE = re.compile(r"[0-9a-f]{16}\.safetensors")


def checked_name(field: str, name: str) -> str:
    """A name of a mean or job that is safe as the name of a file.

    Raises:
        RequestError: it is not.
    """
    if not _NAME.fullmatch(name) or name == LATEST:
        raise RequestError(
            field,
            f"is {name!r}; use 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter "
            f"or digit, and not {LATEST!r}",
        )
    return name


class MeanStore:
    """Means in a directory. Methods touch the disk: call them off the event loop.

    Attributes:
        directory: Where they are.
    """

    def __init__(
        self,
        directory: Path,
        capacity: int = Limits.store_bytes,
        replica: Replica = NO_REPLICA,
    ) -> None:
        """Use a directory, which is made where it is missing.

        Args:
            directory: Where the means are.
            capacity: Bytes of all of them.
            replica: Where they are shared with other machines.
        """
        self.directory = self._directory = directory
        self._capacity = capacity
        self._replica = replica
        self._numbering = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        remove_partial(directory)

    def sweep(self) -> None:
        """Remove files without a record, which a server leaves that is killed at the wrong moment.

        Between the two files of a mean, that is, or the two of a removal. Only who owns the
        directory may: to others, a mean that is being stored looks the same.
        """
        for path in self._directory.glob("*.safetensors"):
            if _FILE.fullmatch(path.name) and not path.with_suffix(".json").exists():
                log.warning(
                    "%s has no record and is removed: it was never stored, or deleted", path
                )
                path.unlink(missing_ok=True)

    def records(self) -> list[CorpusMean]:
        """All records, newest first.

        Raises:
            StorageError: those of other machines cannot be read.
        """
        self._replica.pull(self._directory)

        return [entry.record for entry in sorted(self._entries(), key=Entry.age, reverse=True)]

    def find(self, name: str, model: ModelStamp) -> CorpusMean:
        """The record of an id, of the newest mean of a name, or of `latest`.

        Raises:
            MeanNotFoundError: there is none.
            StorageError: those of other machines cannot be read.
        """
        # An id names one content for ever: what is here need not be looked for elsewhere.
        for entry in self._entries():
            if name == entry.record.id:
                return entry.record
        records = self.records()
        for record in records:
            if name in {record.id, record.name}:
                return record
            if name == LATEST and same_states(record.model, model):
                return record
        known = ", ".join(sorted({record.name for record in records})) or "none"
        of_model = " of this model and these layers" if name == LATEST else ""
        raise MeanNotFoundError(f"no corpus mean {name!r}{of_model}; there are: {known}")

    def holds(self, mean: str) -> bool:
        """Whether there is a mean of this id, and nobody has deleted it.

        Raises:
            StorageError: those of other machines cannot be read.
        """
        return any(record.id == mean for record in self.records())

    def load(self, record: CorpusMean) -> MeanTensors:
        """The tensors of a mean, its file checked against its SHA-256.

        Raises:
            MeanCorruptError: the file was altered, cut or removed.
        """
        return decode(self.content(record))

    def content(self, record: CorpusMean) -> bytes:
        """The bytes of a mean's file, checked.

        Raises:
            MeanCorruptError: the file was altered, cut or removed.
        """
        try:
            content = self._file(record.id).read_bytes()
        except OSError as error:
            raise MeanCorruptError(
                f"the file of mean {record.id} cannot be read: {error}"
            ) from error
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise MeanCorruptError(
                f"the file of mean {record.id} ({record.name}) is not what was stored: its SHA-256 "
                "differs. It is not used; delete it and compute or upload it again"
            )
        return content

    def path(self, record: CorpusMean) -> Path:
        """Where the file of a mean is, whatever is in it."""
        return self._file(record.id)

    def save(self, accumulator: MeanAccumulator, record: CorpusMean) -> CorpusMean:
        """Store a computed mean; returns its record, completed.

        Raises:
            StorageError: the disk is full or cannot be written; the store is as it was before.
        """
        _describe(record, accumulator)
        return self._put(encode(accumulator, record), record)

    def upload(self, name: str, content: bytes, d_model: int) -> CorpusMean:
        """Store a file from elsewhere under a name, its bytes unchanged.

        Raises:
            RequestError: it is no mean's file, of another width than `d_model`, or says of itself
                what cannot be.
            MeanMismatchError: the same file is stored under another name.
            StorageError: the disk is full or cannot be written.
        """
        tensors = decode(content)
        if tensors.mean.shape[1] != d_model:
            raise RequestError(
                "chunk", f"has states of {tensors.mean.shape[1]} numbers; this model has {d_model}"
            )
        record = uploaded_record(tensors)
        record.name = name
        self._replica.pull(self._directory)
        record.sha256 = hashlib.sha256(content).hexdigest()
        for entry in self._entries():
            if entry.record.id == _id_of(record.sha256):
                return self._mend(entry.record, content, name)
        return self._put(content, record)

    def _mend(self, stored: CorpusMean, content: bytes, name: str) -> CorpusMean:
        """A mean that is uploaded again: its record stays, a file that was damaged is replaced.

        Raises:
            MeanMismatchError: it is stored under another name.
            StorageError: the disk is full or cannot be written.
        """
        if stored.name != name:
            raise MeanMismatchError(
                f"this file is here already, as mean {stored.id} ({stored.name}); one file has "
                "one name. Use that, or delete it first"
            )
        try:
            self.content(stored)
        except MeanCorruptError:
            with storing(f"mean {name}"):
                write_whole(self._file(stored.id), content)
            self._replica.push(self._directory)
        return stored

    def merge(self, records: list[CorpusMean], name: str) -> CorpusMean:
        """Merge means of the same model and settings, exactly.

        Raises:
            MeanMismatchError: they do not fit together, are of the same documents, or have no exact
                sums.
            MeanCorruptError: a file was altered.
            StorageError: the disk is full or cannot be written.
        """
        return self.save(*merged(records, self.load, name))

    def check_room(self, sha256: str, size: int) -> None:
        """See that a file can be added, or is there already.

        Raises:
            StorageFullError: there is no room for it.
        """
        if self._file(_id_of(sha256)).exists():
            return
        used = sum(entry.record.size_bytes for entry in self._entries())
        if used + size > self._capacity:
            raise StorageFullError(
                f"the store of means holds {used} bytes and takes {self._capacity}; these are "
                f"{size} more. Delete a mean that nobody needs"
            )

    def delete(self, record: CorpusMean) -> None:
        """Remove a mean: first its record, so that half a removal is a removal."""
        with storing(f"the removal of mean {record.name}"):
            self._file(record.id, "json").unlink(missing_ok=True)
            sync_directory(self._directory)
            self._file(record.id).unlink(missing_ok=True)
        self._replica.push(self._directory)

    def _put(self, content: bytes, record: CorpusMean) -> CorpusMean:
        record.sha256 = hashlib.sha256(content).hexdigest()
        record.id = _id_of(record.sha256)
        record.size_bytes = len(content)
        self.check_room(record.sha256, record.size_bytes)
        # The numbers of other machines; without them, what is known here has to do.
        with contextlib.suppress(StorageError):
            self._replica.pull(self._directory)
        with storing(f"mean {record.name}"):
            write_whole(self._file(record.id), content)
            with self._numbering:
                number = 1 + max((entry.number for entry in self._entries()), default=0)
                set_now(record.created_at)
                entry = Entry(number, record)
                write_whole(self._file(record.id, "json"), entry.encode())
        self._replica.push(self._directory)
        return record

    def _entries(self) -> Iterator[Entry]:
        """All records that can be read, in no order."""
        for path in self._directory.glob("*.json"):
            try:
                yield Entry.decode(path.read_bytes())
            except (OSError, ValueError) as error:
                log.warning("the record %s of a mean cannot be read: %s", path, error)

    def _file(self, mean: str, suffix: str = "safetensors") -> Path:
        return self._directory / f"{mean}.{suffix}"


def set_now(time: Timestamp) -> None:
    """Set a time to that of the clock, which people read; nothing is ordered by it."""
    time.GetCurrentTime()


def _id_of(sha256: str) -> str:
    return sha256[:_ID_LENGTH]


def _describe(record: CorpusMean, accumulator: MeanAccumulator) -> None:
    """Write into a record what its sums say."""
    record.documents = accumulator.documents
    record.tokens = accumulator.tokens
    record.d_model = accumulator.d_model
    record.max_tokens = accumulator.max_tokens
    record.has_counts = True
    record.has_variance = accumulator.squares is not None
