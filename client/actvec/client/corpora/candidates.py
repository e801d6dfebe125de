"""The state of a running fetch on disk: accepted documents and progress."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from actvec.client.corpora.acceptance import Counts
from actvec.client.corpora.sources import Identity
from actvec.client.corpora.writing import encode_line
from actvec.client.files import write_atomic
from actvec.client.lock import locked
from actvec.client.records.vectors import Document


@dataclass
class FetchProgress:
    """The progress of a fetch: the candidates come from exactly the rows before this point.

    Attributes:
        request: The fetch's arguments.
        identity: The dataset's identity when the fetch started.
        shards: Number of shards read to their end, in the order of the seed.
        row: Number of rows read of the next shard.
        counts: The texts read, by result.
        failures: Ids and reasons of the first unreadable rows.
        size: Bytes of the candidates.
    """

    request: dict[str, Any]
    identity: Identity
    shards: int = 0
    row: int = 0
    counts: Counts = field(default_factory=Counts)
    failures: dict[str, str] = field(default_factory=dict)
    size: int = 0


class Candidates:
    """A folder with the accepted documents, one per line, and the progress of the fetch.

    One process at a time can open it. Opening drops lines written after the last `commit`.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder; create it if it is missing.

        Raises:
            Aborted: another process has it open.
            OSError: it cannot be created or written to.
        """
        self.folder = folder
        self._progress_path = folder / "progress.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._held = ExitStack()
        self._held.enter_context(locked(folder))
        self._file: BinaryIO = self._held.enter_context((folder / "candidates.jsonl").open("a+b"))

    def resume(self) -> FetchProgress | None:
        """Return the progress at the last commit; None if there is none."""
        try:
            saved = json.loads(self._progress_path.read_bytes())
            progress = FetchProgress(**saved | {"counts": Counts.from_dict(saved["counts"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if self._file.seek(0, os.SEEK_END) < progress.size:
            return None
        self._file.truncate(progress.size)
        return progress

    def clear(self) -> None:
        """Delete all candidates and progress."""
        self._progress_path.unlink(missing_ok=True)
        self._file.truncate(0)

    def add(self, document: Document) -> None:
        """Append a document."""
        self._file.write(encode_line(document))

    def commit(self, progress: FetchProgress) -> None:
        """Make all added documents and the progress durable."""
        self._file.flush()
        os.fsync(self._file.fileno())
        progress.size = self._file.tell()
        write_atomic(self._progress_path, json.dumps(asdict(progress)).encode())

    def __iter__(self) -> Iterator[tuple[int, Document]]:
        """Yield each document with its offset, in order."""
        self._file.seek(0)
        offset = 0
        for line in self._file:
            yield offset, _decode(line)
            offset += len(line)

    def at(self, offsets: list[int]) -> Iterator[Document]:
        """Yield the documents at these offsets, in their order."""
        for offset in offsets:
            self._file.seek(offset)
            yield _decode(self._file.readline())

    def close(self) -> None:
        """Release the folder, or remove it if nothing was committed."""
        if not self._progress_path.exists():
            shutil.rmtree(self.folder)
        self._held.close()


def _decode(line: bytes) -> Document:
    record = json.loads(line)
    return Document(record["id"], record["text"])
