"""Files of means on their way: a piece at a time, whatever their size and however many there are.

A call holds one piece in memory and no open file: a caller who does not read, or does not send, may
have hundreds of them.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from actvec.server.errors import MeanCorruptError, MeanNotFoundError, RequestError
from actvec.server.means.whole import storing
from actvec.v1.means_pb2 import CorpusMean

PIECE_BYTES = 1 << 20


def check_file(path: Path, record: CorpusMean) -> None:
    """See that a mean's file is what was stored.

    Raises:
        MeanCorruptError: it was altered, cut or removed.
    """
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(record, error) from error
    if sha256 != record.sha256:
        raise MeanCorruptError(
            f"the file of mean {record.id} ({record.name}) is not what was stored: its SHA-256 "
            "differs. It is not used; delete it and compute or upload it again"
        )


def read_piece(path: Path, record: CorpusMean, start: int) -> bytes:
    """The bytes of a mean's file from `start` on, at most a piece.

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
        raise _unreadable(record, error) from error


def _unreadable(record: CorpusMean, error: OSError) -> MeanCorruptError:
    return MeanCorruptError(f"the file of mean {record.id} cannot be read: {error}")


class Arriving:
    """A file that arrives. Its methods touch the disk: call them off the event loop.

    Args:
        name: What the mean is to be called.
        size: Its bytes, as announced.
        sha256: Its hash, as announced, in hexadecimal.
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
        """Take the next piece.

        Raises:
            RequestError: there is more than was announced.
            StorageError: the disk is full or cannot be written.
        """
        if self.received + len(piece) > self.size:
            raise RequestError("chunk", f"goes beyond the {self.size} bytes")
        with storing(f"mean {self._name}"), self._path.open("ab") as file:
            file.write(piece)
        self._hash.update(piece)
        self.received += len(piece)

    def check(self) -> None:
        """See that the file is what was announced.

        Raises:
            RequestError: it is shorter, or of other bytes.
        """
        if self.received != self.size:
            raise RequestError(
                "chunk", f"ended after {self.received} of {self.size} bytes; send it again"
            )
        if self._hash.hexdigest() != self._sha256:
            raise RequestError("upload.sha256", "is not that of the bytes; send the file again")

    def content(self) -> bytes:
        """All of it.

        Raises:
            StorageError: the disk cannot be read.
        """
        with storing(f"mean {self._name}"):
            return self._path.read_bytes()


@contextlib.contextmanager
def arriving(directory: Path, name: str, size: int, sha256: str) -> Iterator[Arriving]:
    """A file that arrives in a directory, and is gone when the block ends.

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
