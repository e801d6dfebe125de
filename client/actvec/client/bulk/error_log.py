"""The list of the documents that have no vector."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from actvec.client.errors import DataLoss
from actvec.client.vectors import Failure
from actvec.client.whole import whole_file

# What may have passed when a job is resumed: an engine that was lost, a server without memory, a
# file on a disk that was away. Other codes are of the document itself.
_PASSING = {"INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN"}


class ErrorLog:
    """A file of one JSON object a failed document; there is none where none failed.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Forget an earlier job's; or go on with its list, save for what is to be tried again.

        Tried again is what failed for a reason that may have passed, and what a half line stood
        for.

        Raises:
            DataLoss: a line is damaged.
            OSError: it cannot be removed, read or written.
        """
        self.path = path
        self._file: BinaryIO | None = None
        if resume:
            _keep_final(path)
        else:
            path.unlink(missing_ok=True)

    @property
    def empty(self) -> bool:
        """Whether nothing failed."""
        return not self.path.exists()

    def indices(self) -> Iterator[int]:
        """The numbers of the documents in it.

        Raises:
            DataLoss: a line is damaged.
            OSError: it cannot be read.
        """
        return (index for index, _, _ in _read(self.path))

    def write(self, failure: Failure) -> None:
        """Add one, at once, so that a job that is killed has told.

        Raises:
            OSError: the disk is full, or the like.
        """
        if self._file is None:
            self._file = self.path.open("ab", buffering=0)
        self._file.write(json.dumps(failure.to_dict()).encode() + b"\n")

    def commit(self) -> None:
        """Make it last, whatever happens to the machine.

        Raises:
            OSError: the disk is full, or the like.
        """
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Add no more. May be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _read(path: Path) -> Iterator[tuple[int, str, bytes]]:
    """The number and the code of each document in a list, and its line, for all whole lines.

    Raises:
        DataLoss: a line is damaged.
        OSError: it cannot be read.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
                index, code = record["index"], record["code"]
            except (ValueError, LookupError, TypeError):
                index = code = None
            if not isinstance(index, int) or index < 0 or not isinstance(code, str):
                raise DataLoss(f"{path}, line {number}: not what was written there")
            yield index, code, line


def _keep_final(path: Path) -> None:
    if not path.exists():
        return
    with whole_file(path) as kept, kept.open("wb") as file:
        file.writelines(line for _, code, line in _read(path) if code not in _PASSING)
    if not path.stat().st_size:
        path.unlink()
