"""The state of a job: in its folder, and in numbers."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from actvec.client.bulk.checksums import Checksums, missing_files
from actvec.client.bulk.failures import ErrorLog
from actvec.client.bulk.indices import IndexSet, RepeatedIds
from actvec.client.bulk.manifest import Manifest, now
from actvec.client.bulk.options import JobOptions
from actvec.client.bulk.progress import JobProgress
from actvec.client.bulk.sinks.sink import DuplicateNameError, Row, Sink
from actvec.client.errors import DataLoss, FailedPrecondition, OutOfRange, StampChanged
from actvec.client.files import remove_partial, sync_folder
from actvec.client.lock import locked
from actvec.client.records.differences import differences
from actvec.client.records.settings import VectorSettings
from actvec.client.records.stamp import Stamp
from actvec.client.records.vectors import Document, Failure, Result, Vector


class Ledger:
    """An open job: the documents left to compute, and the results of the others.

    One thread may draw documents while another keeps results. It holds two numbers per document in
    flight, and one bit per finished one. If the disk is full, methods raise OSError.

    Attributes:
        progress: The job's progress.
    """

    def __init__(self, options: JobOptions) -> None:
        """Keep the options, without reading or writing anything; see `open`."""
        self.progress = JobProgress()
        self._options = options
        self._opened = contextlib.ExitStack()
        self._done = IndexSet()
        self._ids = RepeatedIds()
        # For documents in flight: their number in the source by their number in the stream; and, in
        # the order of drawing, the end of each in the source, in bytes.
        self._indices: dict[int, int] = {}
        self._ends: deque[int] = deque()
        self._stamp: Stamp | None = None
        self._uploaded = 0

    def open(self) -> None:
        """Lock the folder, take stock of it, and record the job in it.

        Raises:
            ActvecError: another process runs the job, it may not be resumed, or it is damaged.
            OSError: it cannot be read or written.
        """
        options = self._options
        options.layout.check_columns(options.source.kept)
        if not options.folder.exists():
            options.folder.mkdir(parents=True, exist_ok=True)
            # A user may have permission to create a folder in a parent that they cannot read.
            with contextlib.suppress(PermissionError):
                sync_folder(options.folder.parent)
        with contextlib.ExitStack() as opened:
            opened.enter_context(locked(options.folder))
            if options.remote:
                opened.enter_context(options.remote.begun(resume=options.resume))
            found = self._found()
            self._manifest = found or options.manifest()
            checksums = Checksums(options.checksums)
            opened.callback(checksums.close)
            self._sink = self._open_sink(checksums, resume=found is not None)
            if found is None:
                # Not before the sink: it refuses vectors that have lost their manifest, and their
                # owner, who restores it, needs the checksums.
                checksums.forget()
            self._errors = ErrorLog(options.errors, resume=found is not None)
            self.progress = progress = self._take_stock()
            counts = self._manifest.vectors, self._manifest.failed
            if counts != (progress.vectors, progress.failed):
                # Documents are left to compute: a finished job that lost vectors, or retries
                # failures, is not finished until `finish`, however this run ends.
                self._manifest = replace(self._manifest, finished_at=None)
            self._manifest.save(options.folder)
            if not self.finished:
                self._upload(first=True)
            opened.callback(self._errors.close)
            # Last in, first out: saved before the folder is unlocked.
            opened.callback(self._save)
            self._opened = opened.pop_all()
        self._started = time.monotonic()
        self._save_at = self._started + options.save_every

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self._manifest.finished_at is not None

    @property
    def settings(self) -> VectorSettings:
        """The settings for the server; resumed, they keep the mean that `latest` named at first."""
        begun = self._manifest.stamp or {}
        settings = self._options.settings
        return replace(settings, center=begun.get("corpus_mean_id") or settings.center)

    def documents(self) -> Iterator[Document | Failure]:
        """Yield the documents left to compute, in order. Iterate only once."""
        for drawn, located in enumerate(self._options.source.scan(self._done)):
            if not drawn and self._done:
                self.progress = replace(self.progress, resumed_bytes=located.end)
            self._indices[drawn] = located.index
            self._ends.append(located.end)
            yield located.document

    def keep(self, result: Result) -> None:
        """Store the result of one of `documents`, under its number in the source.

        Raises:
            StampChanged: the vectors in the folder have another stamp.
            OSError: the disk is full, or similar.
        """
        result = replace(result, index=self._indices.pop(result.index))
        self._ids.add(result.id)
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
            progress,
            durable=self._durable,
            repeated_ids=self._ids.count,
            repeated_id=self._ids.first,
            done_bytes=self._ends.popleft(),
            seconds=now - self._started,
        )
        if now >= self._save_at:
            self._save()

    def finish(self) -> None:
        """Record that the job is finished."""
        self.progress = replace(self.progress, done_bytes=self.progress.input_bytes or 0)
        self._manifest = replace(self._manifest, finished_at=now())
        self._save(last=True)

    def close(self) -> None:
        """Save everything and unlock the folder. Safe to call if `open` failed."""
        self._opened.close()

    def _found(self) -> Manifest | None:
        """Find the job in the folder that this one continues.

        Raises:
            FailedPrecondition: it may not be continued.
        """
        options = self._options
        manifest = Manifest.load(options.folder)
        # A job that ended before its first vector holds nothing: there was no server, or it refused
        # the settings. Lines that could not be read may have failed until then; they fail again.
        if manifest is None or (manifest.stamp is None and manifest.finished_at is None):
            return None
        if not options.resume:
            state = "a finished job" if manifest.finished_at else "a job that is not finished"
            raise FailedPrecondition(
                f"{options.folder} holds {state}; resume it, or give another folder",
                setting="resume",
            )
        manifest.check_continues(options.manifest(), options.folder)
        return manifest

    def _open_sink(self, checksums: Checksums, *, resume: bool) -> Sink:
        options = self._options
        sink = options.layout.open(
            options.folder, run=self._manifest.run, resume=resume, checksums=checksums
        )
        for folder in {options.folder, sink.folder}:
            remove_partial(folder)
        return sink

    def _take_stock(self) -> JobProgress:
        """Count what is in the folder.

        Raises:
            DataLoss: it is damaged.
        """
        vectors = tokens = shortened = failed = 0
        for row in self._sink.rows():
            self._count(row.index)
            self._ids.add(row.id)
            vectors += 1
            tokens += row.tokens
            shortened += row.shortened
        for index in self._errors.indices():
            self._count(index)
            failed += 1
        lost = max(self._manifest.vectors - vectors, 0)
        return JobProgress(
            vectors=vectors,
            durable=vectors,
            lost=lost,
            lost_files=tuple(missing_files(self._options.checksums)) if lost else (),
            repeated_ids=self._ids.count,
            repeated_id=self._ids.first,
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
        """Write a vector; return a failure if its document cannot be written."""
        if vector.stamp is not self._stamp:
            self._hold_to(vector.stamp)
        try:
            self._sink.write(vector)
        except (DuplicateNameError, OutOfRange) as error:
            return Failure.of(error, vector.id, vector.index, vector.columns)
        return vector

    def _hold_to(self, stamp: Stamp) -> None:
        """Record the stamp of the first vector, and check that of later ones against it.

        Raises:
            StampChanged: it differs.
        """
        record = stamp.to_dict()
        begun = self._manifest.stamp
        if begun is None:
            self._manifest = replace(self._manifest, stamp=record)
            self._manifest.save(self._options.folder)
            # Before any vectors, unless they and the manifest appear together.
            if self._options.remote and not self._options.remote.atomic:
                self._upload()
        elif reasons := differences(Stamp.complete(begun), record):
            raise StampChanged(
                f"the server makes other vectors than those in {self._options.folder}: {reasons}."
                " Resume with a server like the one that the job was begun with, or give another"
                " folder"
            )
        self._stamp = stamp

    @property
    def _durable(self) -> int:
        new = self._uploaded if self._options.remote else self._sink.committed
        return self.progress.resumed_vectors + new

    def _upload(self, *, first: bool = False, last: bool = False) -> None:
        """Upload what is committed, if the folder is remote and its store takes it now."""
        remote, committed = self._options.remote, self._sink.committed
        if remote and remote.save(first=first, last=last):
            self._uploaded = committed
            self.progress = replace(self.progress, durable=self._durable)

    def _save(self, *, last: bool = False) -> None:
        """Make all results durable, and record the progress."""
        self._sink.commit()
        self.progress = progress = replace(self.progress, durable=self._durable)
        self._errors.commit()
        self._manifest = replace(
            self._manifest,
            vectors=progress.vectors,
            failed=progress.failed,
            tokens=progress.tokens,
        )
        self._manifest.save(self._options.folder)
        sync_folder(self._options.folder)
        self._upload(last=last)
        self._save_at = time.monotonic() + self._options.save_every
