"""What a job has done: in its folder, and in numbers."""

import contextlib
import secrets
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from actvec.client.bulk.error_log import ErrorLog
from actvec.client.bulk.indices import IndexSet
from actvec.client.bulk.layout import Layout
from actvec.client.bulk.manifest import Manifest
from actvec.client.bulk.progress import JobProgress
from actvec.client.bulk.sink import Row, Sink, differences
from actvec.client.documents import DocumentSource
from actvec.client.errors import DataLoss, FailedPrecondition, OutOfRange, StampChanged
from actvec.client.files import DuplicateNameError
from actvec.client.lock import locked
from actvec.client.vectors import Document, Failure, Result, Settings, Stamp, Vector
from actvec.client.whole import remove_partial


@dataclass(frozen=True)
class JobOptions:
    """What a job is; its attributes are described where `VectorJob` takes them."""

    source: DocumentSource
    folder: Path
    settings: Settings
    layout: Layout
    ordered: bool
    resume: bool
    save_every: float

    @property
    def errors(self) -> Path:
        """The list of the documents that failed."""
        return self.folder / "errors.jsonl"

    def manifest(self) -> Manifest:
        """The record of this job as it begins.

        Raises:
            OSError: the source cannot be read.
        """
        identity = self.source.identity()
        settings = asdict(self.settings) | asdict(self.layout) | {"ordered": self.ordered}
        # How the numbers travel makes no difference to the files.
        del settings["encoding"]
        return Manifest(
            run=secrets.token_hex(16),
            created_at=_now(),
            settings=settings,
            input=identity and {"path": str(self.source.path)} | identity,
        )


class Ledger:
    """A job that is open: which documents are left, and what becomes of them.

    Documents may be drawn in one thread and kept in another. Of a document on its way it holds two
    numbers, of one that is done a bit.

    Attributes:
        progress: How far the job is.
    """

    def __init__(self, options: JobOptions) -> None:
        """Nothing is read or written yet; see `open`."""
        self.progress = JobProgress()
        self._options = options
        self._opened = contextlib.ExitStack()
        self._done = IndexSet()
        # Of the documents on their way: by their number in the stream that in the source; and, in
        # the order of drawing, the bytes of the source up to each.
        self._indices: dict[int, int] = {}
        self._ends: deque[int] = deque()
        self._stamp: Stamp | None = None

    def open(self) -> None:
        """Lock the folder, find what is in it, and put down in it what it is for.

        Raises:
            ActvecError: another process is at it, it is not to be gone on with, or it is damaged.
            OSError: it cannot be read or written.
        """
        options = self._options
        options.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            opened.enter_context(locked(options.folder))
            found = self._found()
            self._manifest = found or options.manifest()
            self._sink = self._open_sink(resume=found is not None)
            self._errors = ErrorLog(options.errors, resume=found is not None)
            self.progress = self._take_stock()
            self._manifest.save(options.folder)
            opened.callback(self._errors.close)
            # Last in, first out: before the folder is let go.
            opened.callback(self._save)
            self._opened = opened.pop_all()
        self._started = time.monotonic()
        self._save_at = self._started + options.save_every

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        manifest = self._manifest
        return manifest.finished_at is not None and (
            (manifest.vectors, manifest.failed) == (self.progress.vectors, self.progress.failed)
        )

    @property
    def settings(self) -> Settings:
        """What to ask the server for: resumed, the mean that `latest` was at the beginning."""
        begun = self._manifest.stamp or {}
        settings = self._options.settings
        return replace(settings, center=begun.get("corpus_mean_id") or settings.center)

    def documents(self) -> Iterator[Document | Failure]:
        """The documents that are left, in order. To be drawn once."""
        for drawn, located in enumerate(self._options.source.scan(self._done)):
            if not drawn and self._done:
                self.progress = replace(self.progress, resumed_bytes=located.end)
            self._indices[drawn] = located.index
            self._ends.append(located.end)
            yield located.document

    def keep(self, result: Result) -> None:
        """Put down what became of one of `documents`, under its number in the source.

        Raises:
            StampChanged: the vectors in the folder are of another stamp.
            OSError: the disk is full, or the like.
        """
        result = replace(result, index=self._indices.pop(result.index))
        progress = self.progress
        if isinstance(result, Vector):
            result = self._write(result)
        if isinstance(result, Vector):
            progress = replace(
                progress,
                vectors=progress.vectors + 1,
                tokens=progress.tokens + result.tokens,
                shortened=progress.shortened + Row.of(result).shortened,
            )
        else:
            self._errors.write(result)
            progress = replace(progress, failed=progress.failed + 1)
        now = time.monotonic()
        self.progress = replace(
            progress, done_bytes=self._ends.popleft(), seconds=now - self._started
        )
        if now >= self._save_at:
            self._save()

    def finish(self) -> None:
        """Everything is done.

        Raises:
            OSError: the disk is full, or the like.
        """
        self.progress = replace(self.progress, done_bytes=self.progress.input_bytes or 0)
        self._manifest = replace(self._manifest, finished_at=_now())
        self._save()

    def close(self) -> None:
        """Save what there is, and let go of the folder. May be called though `open` failed.

        Raises:
            OSError: the disk is full, or the like.
        """
        self._opened.close()

    def _found(self) -> Manifest | None:
        """The job that is in the folder and goes on.

        Raises:
            FailedPrecondition: it may not.
        """
        options = self._options
        manifest = Manifest.load(options.folder)
        # One that has neither a vector nor an error, as where no server was there, holds nothing.
        if manifest is None or (manifest.stamp is None and not options.errors.exists()):
            return None
        if not options.resume:
            state = "a finished job" if manifest.finished_at else "a job that is not finished"
            raise FailedPrecondition(
                f"{options.folder} holds {state}; resume it (--resume), or give another folder"
            )
        manifest.check_continues(options.manifest(), options.folder)
        return manifest

    def _open_sink(self, *, resume: bool) -> Sink:
        options = self._options
        sink = options.layout.open(options.folder, run=self._manifest.run, resume=resume)
        for folder in {options.folder, sink.folder}:
            remove_partial(folder)
        return sink

    def _take_stock(self) -> JobProgress:
        """What is in the folder.

        Raises:
            DataLoss: it is damaged.
        """
        vectors = tokens = shortened = failed = 0
        for row in self._sink.rows():
            self._count(row.index)
            vectors += 1
            tokens += row.tokens
            shortened += row.shortened
        for index in self._errors.indices():
            self._count(index)
            failed += 1
        return JobProgress(
            vectors=vectors,
            failed=failed,
            tokens=tokens,
            shortened=shortened,
            resumed_vectors=vectors,
            resumed_failed=failed,
            resumed_tokens=tokens,
            input_bytes=self._options.source.size,
        )

    def _count(self, index: int) -> None:
        if not self._done.add(index):
            raise DataLoss(f"document {index} is in {self._options.folder} twice: it was altered")

    def _write(self, vector: Vector) -> Result:
        """Write a vector; the failure of its document where it cannot be written."""
        if vector.stamp is not self._stamp:
            self._hold_to(vector.stamp)
        try:
            self._sink.write(vector)
        except (DuplicateNameError, OutOfRange) as error:
            return Failure.of(error, vector.id, vector.index)
        return vector

    def _hold_to(self, stamp: Stamp) -> None:
        """Put the stamp down with the first vector; hold later ones to it.

        Raises:
            StampChanged: it is another one.
        """
        record = stamp.to_dict()
        begun = self._manifest.stamp
        if begun is None:
            self._manifest = replace(self._manifest, stamp=record)
            self._manifest.save(self._options.folder)
        elif reasons := differences(begun, record):
            raise StampChanged(
                f"the server makes other vectors than those in {self._options.folder}: {reasons}."
                " Resume with a server like the one that the job was begun with, or give another"
                " folder"
            )
        self._stamp = stamp

    def _save(self) -> None:
        """Make what was kept last, and put down how far that is."""
        self._sink.commit()
        self._errors.commit()
        progress = self.progress
        self._manifest = replace(
            self._manifest,
            vectors=progress.vectors,
            failed=progress.failed,
            tokens=progress.tokens,
        )
        self._manifest.save(self._options.folder)
        self._save_at = time.monotonic() + self._options.save_every


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
