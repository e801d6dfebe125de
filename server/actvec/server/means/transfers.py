"""Transfers of mean files, piece by piece, whatever their size and number.

A call holds one piece in memory and no open file, so a caller who neither reads nor sends may have
hundreds of them.
"""

import contextlib
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from actvec.server.errors import (
    InputError,
    MeanCorruptError,
    MeanNotFoundError,
    StorageFullError,
)
from actvec.server.files import storing
from actvec.server.means.record import MeanRecord

PIECE_BYTES = 1 << 20


def check_file(path: Path, record: MeanRecord) -> None:
    """Check that a mean's file is the one that was stored.

    Raises:
        MeanCorruptError: it was altered, cut or removed.
    """
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(record, error) from error
    check_sha256(record, sha256)


def check_sha256(record: MeanRecord, found: str) -> None:
    """Check the SHA-256 of a mean's file, in hexadecimal.

    Raises:
        MeanCorruptError: it is another one.
    """
    if found != record.sha256:
        raise MeanCorruptError(
            f"the file of mean {record.id} ({record.name}) is not what was stored: its SHA-256 "
            "differs. It is not used; delete it and compute or upload it again"
        )


def read_piece(path: Path, record: MeanRecord, start: int) -> bytes:
    """Read the bytes of a mean's file from `start`, at most one piece.

    Raises:
        MeanNotFoundError: the mean was deleted meanwhile.
        MeanCorruptError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(PIECE_BYTES)
    except FileNotFoundError as error:
        raise MeanNotFoundError(
            f"mean {record.name} ({record.id}) was deleted while it was downloaded"
        ) from error
    except OSError as error:
        raise unreadable(record, error) from error


def unreadable(record: MeanRecord, error: OSError) -> MeanCorruptError:
    """The error of a mean whose file the disk does not give."""
    return MeanCorruptError(f"the file of mean {record.id} cannot be read: {error}")


class Uploads:
    """The room that the uploads in progress need. Used on the event loop.

    For its caller, an upload takes all that it announced; for others, what has arrived of it. So
    nobody keeps others out by announcing alone.
    """

    def __init__(self) -> None:
        self._announced: Counter[str] = Counter()
        self._arrived: Counter[str] = Counter()

    @contextlib.contextmanager
    def announced(self, caller: str, size: int) -> Iterator["Upload"]:
        """An upload of so many bytes, while the block runs."""
        upload = Upload(self._arrived, caller)
        self._announced[caller] += size
        try:
            yield upload
        finally:
            self._announced[caller] -= size
            self._arrived[caller] -= upload.arrived
            if not self._announced[caller]:
                del self._announced[caller], self._arrived[caller]

    def needed(self, caller: str) -> int:
        """The bytes that a caller's uploads need, and those of others that have arrived."""
        return self._announced[caller] + self._arrived.total() - self._arrived[caller]


class Upload:
    """What has arrived of one upload.

    Attributes:
        arrived: Its bytes.
    """

    def __init__(self, of_all: Counter[str], caller: str) -> None:
        self.arrived = 0
        self._of_all = of_all
        self._caller = caller

    def take(self, size: int, room: int) -> None:
        """More bytes arrive.

        Args:
            size: How many.
            room: How many there is room for, with those of the other uploads.

        Raises:
            StorageFullError: there is no room for them.
        """
        if self._of_all.total() + size > room:
            raise StorageFullError(
                f"the store of means has room for {room} bytes, and other uploads have taken what "
                "this one needs. Send it again in a moment, or delete an unused mean"
            )
        self.arrived += size
        self._of_all[self._caller] += size


class Arriving:
    """An incoming file. Its methods touch the disk: call them off the event loop.

    Args:
        name: The mean's name.
        size: Its announced bytes.
        sha256: Its announced hash, in hexadecimal.
        path: An empty file for it.
    """

    def __init__(self, name: str, size: int, sha256: str, path: Path) -> None:
        self.received = 0
        self.size = size
        self._name = name
        self._sha256 = sha256
        self._path = path
        self._hash = hashlib.sha256()

    def write(self, piece: bytes) -> None:
        """Append the next piece.

        Raises:
            InputError: the file exceeds the announced size.
            StorageError: the disk is full or cannot be written.
        """
        if self.received + len(piece) > self.size:
            raise InputError(
                "file", f"has more than the {self.size} bytes that were announced; send it again"
            )
        # Not "ab", which would make the file again that a cancelled call has removed.
        with storing(f"mean {self._name}"), self._path.open("r+b") as file:
            file.seek(self.received)
            file.write(piece)
        self._hash.update(piece)
        self.received += len(piece)

    def check(self) -> None:
        """Check the file against its announcement.

        Raises:
            InputError: it is shorter, or has other bytes.
        """
        if self.received != self.size:
            raise InputError(
                "file", f"ended after {self.received} of {self.size} bytes; send it again"
            )
        if self._hash.hexdigest() != self._sha256:
            raise InputError("file", "does not have the SHA-256 that was announced; send it again")

    def content(self) -> bytes:
        """Read all of it.

        Raises:
            StorageError: the disk cannot be read.
        """
        with storing(f"mean {self._name}"):
            return self._path.read_bytes()


@contextlib.contextmanager
def arriving(directory: Path, name: str, size: int, sha256: str) -> Iterator[Arriving]:
    """An incoming file in a directory, removed when the block ends.

    Raises:
        StorageError: the directory cannot be written.
    """
    with storing(f"mean {name}"):
        descriptor, path = tempfile.mkstemp(dir=directory, prefix=".partial-")
        os.close(descriptor)
    try:
        yield Arriving(name, size, sha256, Path(path))
    finally:
        Path(path).unlink(missing_ok=True)
