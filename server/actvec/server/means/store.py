"""The store of means: a directory of safetensors files, each with its record beside it.

A mean is two files: `ID.safetensors` and its record `ID.json`, written after it. A file without a
record is not a mean. The id is a prefix of the file's SHA-256, so equal contents have equal ids,
and every load checks the file against it.
"""

import contextlib
import hashlib
import logging
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from actvec.pooling import MeanAccumulator
from actvec.server.config import Limits
from actvec.server.errors import (
    InputError,
    MeanCorruptError,
    MeanMismatchError,
    MeanNotFoundError,
    StorageError,
    StorageFullError,
)
from actvec.server.files import remove_partial, storing, sync_directory, write_atomic
from actvec.server.means.entry import Entry
from actvec.server.means.format import MeanTensors, computed, decode
from actvec.server.means.merging import merged
from actvec.server.means.naming import LATEST
from actvec.server.means.record import MeanRecord, mean_id
from actvec.server.means.replica import NO_REPLICA, Replica
from actvec.server.means.transfers import check_sha256, unreadable
from actvec.server.means.uploading import uploaded_record
from actvec.server.model.stamp import ModelStamp

log = logging.getLogger(__name__)

_FILE = re.compile(r"[0-9a-f]{16}\.safetensors")


class MeanStore:
    """Means in a directory. Methods touch the disk: call them off the event loop.

    Attributes:
        directory: The directory.
    """

    def __init__(
        self,
        directory: Path,
        capacity: int = Limits.store_bytes,
        replica: Replica = NO_REPLICA,
    ) -> None:
        """Use a directory; create it if it is missing.

        Args:
            directory: The directory of the means.
            capacity: Limit on their total bytes.
            replica: Where to share them with other machines.
        """
        self.directory = directory
        self._capacity = capacity
        self._replica = replica
        self._numbering = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        remove_partial(directory)

    def sweep(self) -> None:
        """Remove files without a record, which remain if a server dies between the files of a mean.

        Only the owner of the directory may call this: to others, a mean that is being stored looks
        the same.
        """
        for path in self.directory.glob("*.safetensors"):
            if _FILE.fullmatch(path.name) and not path.with_suffix(".json").exists():
                log.warning(
                    "removed %s, which has no record: it was never stored, or was deleted", path
                )
                path.unlink(missing_ok=True)

    def records(self) -> list[MeanRecord]:
        """All records, newest first.

        Raises:
            StorageError: those of other machines cannot be read.
        """
        self._replica.pull(self.directory)

        return [entry.record for entry in sorted(self._entries(), key=Entry.age, reverse=True)]

    def find(
        self, name: str, model: ModelStamp, suits: Callable[[MeanRecord], bool] = lambda _: True
    ) -> MeanRecord:
        """Return the record of an id, of the newest mean of a name, or of `latest`.

        Args:
            name: The id, the name or `latest`.
            model: The model and layers that `latest` must be able to center.
            suits: A preference among candidates for `latest`; if none suits, the newest candidate
                wins.

        Raises:
            MeanNotFoundError: there is none.
            StorageError: those of other machines cannot be read.
        """
        # An id names one content forever, so a local mean needs no look elsewhere.
        for entry in self._entries():
            if name == entry.record.id:
                return entry.record
        records = self.records()
        if name == LATEST:
            able = [one for one in records if one.model and one.model.can_center(model)]
            for record in (*filter(suits, able), *able):
                return record
        for record in records:
            if name in {record.id, record.name}:
                return record
        known = ", ".join(sorted({record.name for record in records})) or "none"
        of_model = " of this model and these layers and hook" if name == LATEST else ""
        raise MeanNotFoundError(f"no corpus mean {name!r}{of_model}; there are: {known}")

    def holds(self, mean: str) -> bool:
        """Whether the store has a mean of this id, which nobody has deleted.

        Raises:
            StorageError: those of other machines cannot be read.
        """
        return any(record.id == mean for record in self.records())

    def load(self, record: MeanRecord) -> MeanTensors:
        """Load the tensors of a mean, and check its file against its SHA-256.

        Raises:
            MeanCorruptError: the file was altered, cut or removed, or this version cannot read it.
        """
        try:
            return decode(self.content(record))
        except InputError as error:
            raise MeanCorruptError(
                f"the file of mean {record.id} ({record.name}) {error.reason}"
            ) from error

    def content(self, record: MeanRecord) -> bytes:
        """Read the bytes of a mean's file, and check them.

        Raises:
            MeanCorruptError: the file was altered, cut or removed.
        """
        try:
            content = self._file(record.id).read_bytes()
        except OSError as error:
            raise unreadable(record, error) from error
        check_sha256(record, hashlib.sha256(content).hexdigest())
        return content

    def path(self, record: MeanRecord) -> Path:
        """The path of a mean's file, unchecked."""
        return self._file(record.id)

    def save(self, accumulator: MeanAccumulator, record: MeanRecord) -> MeanRecord:
        """Store a computed mean, and return its completed record.

        Raises:
            StorageError: the disk is full or cannot be written; the store is unchanged.
        """
        return self._put(*computed(accumulator, record))

    def upload(self, name: str, content: bytes, d_model: int) -> MeanRecord:
        """Store a file from elsewhere under a name, its bytes unchanged.

        Raises:
            InputError: it is not a mean's file, has another width than `d_model`, or its record is
                impossible.
            MeanMismatchError: the store has the same file under another name.
            StorageError: the disk is full or cannot be written.
        """
        tensors = decode(content)
        width = tensors.mean.shape[-1]
        if width != d_model:
            raise InputError("file", f"has states of {width} numbers; this model has {d_model}")
        record = replace(uploaded_record(tensors), name=name)
        self._replica.pull(self.directory)
        mean = mean_id(hashlib.sha256(content).hexdigest())
        for entry in self._entries():
            if entry.record.id == mean:
                return self._mend(entry.record, content, name)
        return self._put(content, record.of_file(content))

    def _mend(self, stored: MeanRecord, content: bytes, name: str) -> MeanRecord:
        """Handle a second upload of a mean: keep its record, replace a damaged file.

        Raises:
            MeanMismatchError: it is stored under another name.
            StorageError: the disk is full or cannot be written.
        """
        if stored.name != name:
            raise MeanMismatchError(
                f"the store has this file already, as mean {stored.id} ({stored.name}). "
                "Use that mean, or delete it first"
            )
        try:
            self.content(stored)
        except MeanCorruptError:
            with storing(f"mean {name}"):
                write_atomic(self._file(stored.id), content)
            self._replica.push(self.directory)
        return stored

    def merge(self, records: list[MeanRecord], name: str) -> MeanRecord:
        """Merge means of the same model and settings, exactly.

        Raises:
            MeanMismatchError: they do not match, share documents, or lack exact sums.
            MeanCorruptError: a file was altered.
            StorageError: the disk is full or cannot be written.
        """
        return self.save(*merged(records, self.load, name))

    def check_room(self, sha256: str, size: int) -> int:
        """Check that there is room for a file, or that it is stored already.

        Returns:
            The bytes that may arrive.

        Raises:
            StorageFullError: there is no room for it.
        """
        if self._file(mean_id(sha256)).exists():
            return self._capacity
        used = sum(entry.record.size_bytes for entry in self._entries())
        if used + size > self._capacity:
            raise StorageFullError(
                f"the store of means holds {used} bytes, its limit is {self._capacity}, "
                f"and this mean needs {size} more. Delete an unused mean"
            )
        return self._capacity - used

    def delete(self, record: MeanRecord) -> None:
        """Remove a mean, its record first: without a record, its file is not a mean."""
        with storing(f"the removal of mean {record.name}"):
            self._file(record.id, "json").unlink(missing_ok=True)
            sync_directory(self.directory)
            self._file(record.id).unlink(missing_ok=True)
        self._replica.push(self.directory)

    def _put(self, content: bytes, record: MeanRecord) -> MeanRecord:
        self.check_room(record.sha256, record.size_bytes)
        # The numbers of other machines matter; if they are away, the local ones must do.
        with contextlib.suppress(StorageError):
            self._replica.pull(self.directory)
        with storing(f"mean {record.name}"):
            write_atomic(self._file(record.id), content)
            with self._numbering:
                number = 1 + max((entry.number for entry in self._entries()), default=0)
                entry = Entry(number, record)
                write_atomic(self._file(record.id, "json"), entry.encode())
        self._replica.push(self.directory)
        return record

    def _entries(self) -> Iterator[Entry]:
        """All readable records, in no order."""
        for path in self.directory.glob("*.json"):
            try:
                yield Entry.decode(path.read_bytes())
            except (OSError, ValueError) as error:
                log.warning("the record %s of a mean cannot be read: %s", path, error)

    def _file(self, mean: str, suffix: str = "safetensors") -> Path:
        return self.directory / f"{mean}.{suffix}"
