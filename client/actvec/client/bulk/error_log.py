"""The list of the documents that have no vector."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from actvec.client.errors import DataLoss
from actvec.client.vectors import Failure


class ErrorLog:
    """A file of one JSON object a failed document; there is none where none failed.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Forget an earlier job's, or go on after its last whole line.

        Raises:
            OSError: it cannot be removed, read or mended.
        """
        self.path = path
        self._file: BinaryIO | None = None
        if resume:
            _drop_half_line(path)
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
        if self.empty:
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    index = json.loads(line)["index"]
                except (ValueError, LookupError, TypeError):
                    index = None
                if not isinstance(index, int) or index < 0:
                    raise DataLoss(f"{self.path}, line {number}: not what was written there")
                yield index

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


def _drop_half_line(path: Path) -> None:
    """Remove what follows the last line's end: its document will be computed again."""
    if not path.exists():
        return
    end = 0
    with path.open("rb+") as file:
        for line in file:
            if line.endswith(b"\n"):
                end += len(line)
        file.truncate(end)
    if not end:
        path.unlink()
