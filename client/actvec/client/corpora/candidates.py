"""The part of a fetch that is kept while it runs: what was accepted, and how far it has got."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from actvec.client.corpora.acceptance import Counts
from actvec.client.corpora.sources import Identity
from actvec.client.corpora.writing import encode_line
from actvec.client.lock import locked
from actvec.client.vectors import Document
from actvec.client.whole import write_whole


@dataclass
class Progress:
    """How far a fetch has got. What is before this place is in the candidates, nothing behind it.

    Attributes:
        request: What was asked for.
        identity: What the dataset was when the fetch began.
        shards: Shards that were read to their end, in the order of the seed.
        row: Rows that were read of the next one.
        counts: What became of the texts.
        size: Bytes of the candidates.
    """

    request: dict[str, Any]
    identity: Identity
    shards: int
    row: int
    counts: Counts
    size: int


class Candidates:
    """A folder that holds accepted documents, one a line, and the progress of the fetch.

    One process at a time has it. What was written after the last `commit` is forgotten when it is
    opened again.
    """

    def __init__(self, folder: Path) -> None:
        """Create or open the folder.

        Raises:
            Aborted: another process is at it.
            OSError: it cannot be created or written to.
        """
        self.folder = folder
        self._progress_path = folder / "progress.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._held = ExitStack()
        self._held.enter_context(locked(folder))
        self._file: BinaryIO = self._held.enter_context((folder / "candidates.jsonl").open("a+b"))

    def resume(self) -> Progress | None:
        """What was committed last; None where there is nothing."""
        try:
            saved = json.loads(self._progress_path.read_bytes())
            progress = Progress(**saved | {"counts": Counts.from_dict(saved["counts"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if self._file.seek(0, os.SEEK_END) < progress.size:
            return None
        self._file.truncate(progress.size)
        return progress

    def clear(self) -> None:
        """Forget everything."""
        self._progress_path.unlink(missing_ok=True)
        self._file.truncate(0)

    def add(self, document: Document) -> None:
        """Append one."""
        self._file.write(encode_line(document))

    def commit(self, progress: Progress) -> None:
        """Make all that was added, and how far that is, outlive the machine."""
        self._file.flush()
        os.fsync(self._file.fileno())
        progress.size = self._file.tell()
        content = vars(progress) | {"counts": progress.counts.to_dict()}
        write_whole(self._progress_path, json.dumps(content).encode())

    def __iter__(self) -> Iterator[tuple[int, Document]]:
        """Each document with its offset, from the first one on."""
        self._file.seek(0)
        offset = 0
        for line in self._file:
            yield offset, _decode(line)
            offset += len(line)

    def at(self, offsets: list[int]) -> Iterator[Document]:
        """The documents at these offsets, in their order."""
        for offset in offsets:
            self._file.seek(offset)
            yield _decode(self._file.readline())

    def close(self) -> None:
        """Let another process have the folder, or remove it where nothing was committed."""
        if not self._progress_path.exists():
            shutil.rmtree(self.folder)
        self._held.close()


def _decode(line: bytes) -> Document:
    record = json.loads(line)
    return Document(record["id"], record["text"])
