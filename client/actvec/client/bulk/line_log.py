"""A file of JSON lines that only grows."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from actvec.client.files import naming, sync_folder


class LineLog:
    """JSON lines, each in the file whole or not at all, however the process ends.

    A crash may cut the last line short: `read_lines` ignores it, and `mend` removes it. If the disk
    is full, methods raise OSError, and the file is as before.

    Attributes:
        path: The file, created with the first line.
    """

    def __init__(self, path: Path) -> None:
        """Keep the path, without reading or writing anything."""
        self.path = path
        self._file: BinaryIO | None = None
        self._folder_is_synced = False

    def mend(self) -> None:
        """Remove an incomplete last line, before adding more."""
        if self.path.exists():
            whole = sum(len(line) for _, line in read_lines(self.path))
            if whole < self.path.stat().st_size:
                os.truncate(self.path, whole)

    def add(self, record: dict[str, Any]) -> None:
        """Append a line at once: it survives the process, and after `commit` the machine."""
        with naming(self.path):
            if self._file is None:
                self._file = self.path.open("ab", buffering=0)
            end = os.fstat(self._file.fileno()).st_size
            rest = memoryview(json.dumps(record).encode() + b"\n")
            try:
                # A nearly full disk accepts a part, and refuses the next one.
                while rest:
                    rest = rest[self._file.write(rest) :]
            except BaseException:
                self._file.truncate(end)
                raise

    def commit(self) -> None:
        """Make all lines durable."""
        if self._file is None:
            return
        with naming(self.path):
            os.fsync(self._file.fileno())
        if not self._folder_is_synced:
            sync_folder(self.path.parent)
            self._folder_is_synced = True

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the whole lines of a log, numbered from 1; none if there is no such file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            yield number, line
