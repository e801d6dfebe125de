"""The durable state of a job: sums and their progress, in files that prove their integrity.

A checkpoint's name holds its SHA-256, which exposes a cut or altered file. The job keeps the
previous checkpoint for that case, or for one that cannot be read. Every checkpoint also holds the
job's settings, in case their own file is damaged.
"""

import contextlib
import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load, save

from actvec.pooling import MeanAccumulator
from actvec.server.errors import JobCorruptError
from actvec.server.files import remove_partial, storing, write_atomic
from actvec.server.means.record import SkippedDocuments, by_reason
from actvec.server.means.replica import NO_REPLICA, Replica
from actvec.server.means.views import metadata

log = logging.getLogger(__name__)

EMPTY_CORPUS = bytes(32)
_KEPT = 2
# Characters of a skipped document's id: every commit and the mean's record repeat it.
_SHOWN_ID = 1024
_FINISHED = "finished.json"


@dataclass
class JobState:
    """A job's sums over the documents below `next_sequence`.

    Attributes:
        accumulator: The sums.
        next_sequence: Number of documents added or skipped.
        corpus: Their digest, as in `CorpusMeanCommit.corpus_sha256`.
        skipped: The skipped ones, one entry per reason.
    """

    accumulator: MeanAccumulator
    next_sequence: int = 0
    corpus: bytes = EMPTY_CORPUS
    skipped: tuple[SkippedDocuments, ...] = ()

    def skip(self, reason: str, message: str, document: str) -> None:
        """Count a skipped document."""
        entry = SkippedDocuments(reason, 1, message, document[:_SHOWN_ID])
        self.skipped = by_reason([*self.skipped, entry])

    def first_reason(self) -> str:
        """Describe how many documents were skipped, and why the first was; empty if none was."""
        if not self.skipped:
            return ""
        first = self.skipped[0]
        count = sum(entry.documents for entry in self.skipped)
        return f"; {count} skipped, the first, {first.first_id!a}, because {first.first_message}"

    def merge(self, later: "JobState") -> None:
        """Add the documents that follow."""
        self.accumulator.merge(later.accumulator)
        self.next_sequence = later.next_sequence
        self.corpus = later.corpus
        self.skipped = by_reason([*self.skipped, *later.skipped])


@dataclass(frozen=True)
class FinishedJob:
    """A job whose mean is finished.

    Attributes:
        documents: Number of documents added or skipped.
        mean: The mean's id.
    """

    documents: int
    mean: str


class JobDirectory:
    """The files of one job. Methods touch the disk: call them off the event loop.

    Args:
        directory: The directory of the files.
        replica: Where to share them with other machines.
    """

    def __init__(self, directory: Path, replica: Replica = NO_REPLICA) -> None:
        self._directory = directory
        self._replica = replica
        self._settings_file = directory / "settings.json"
        self._settings = ""
        # Checkpoints known to be whole, newest first.
        self._whole: list[Path] = []

    def refresh(self) -> None:
        """Copy another machine's progress with the job.

        Raises:
            StorageError: it cannot be read now.
        """
        self._replica.pull(self._directory)

    def settings(self) -> str | None:
        """The job's settings, as JSON; None for a job without progress.

        If their file is damaged, they come from the note of the job's end, or from the newest whole
        checkpoint.

        Raises:
            JobCorruptError: their file is damaged, and there is no copy, or its note is damaged.
        """
        try:
            self._settings = self._settings_file.read_text()
            json.loads(self._settings)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._settings = self._copy_of_settings()
            if self._settings:
                log.warning("%s cannot be read (%s): it is mended", self._settings_file, error)
                with contextlib.suppress(OSError):
                    write_atomic(self._settings_file, self._settings.encode())
            elif self._checkpoints():
                raise JobCorruptError(
                    f"the settings of job {self._directory.name} cannot be read, and no checkpoint "
                    f"has a copy of them: {error}; use another job name"
                ) from error
        return self._settings or None

    def create(self, settings: str) -> None:
        """Start a job. `settings` is JSON."""
        with storing(f"job {self._directory.name}"):
            self._directory.mkdir(parents=True, exist_ok=True)
            write_atomic(self._settings_file, settings.encode())
        self._settings = settings
        self._replica.push(self._directory)

    def save(self, progress: JobState) -> None:
        """Make progress durable, then drop all checkpoints but this and the last whole one before.

        Raises:
            StorageError: the disk is full or cannot be written; earlier checkpoints stay.
        """
        accumulator = progress.accumulator
        tensors = {"counts": accumulator.counts, "sums": accumulator.sums}
        if accumulator.squares is not None:
            tensors["squares"] = accumulator.squares
        state = {
            "next_sequence": progress.next_sequence,
            "corpus": progress.corpus.hex(),
            "skipped": {entry.reason: _without_reason(entry) for entry in progress.skipped},
            "settings": self._settings,
        }
        content = save(tensors, metadata={"progress": json.dumps(state)})
        digest = hashlib.sha256(content).hexdigest()
        path = self._directory / f"checkpoint-{progress.next_sequence:020d}-{digest}.safetensors"
        with storing(f"a checkpoint of job {self._directory.name}"):
            write_atomic(path, content)
        self._whole = [path, *(one for one in self._whole if one != path)][:_KEPT]
        for old in set(self._checkpoints()) - set(self._whole):
            _drop(old)
        self._replica.push(self._directory)

    def load(self) -> JobState | None:
        """Load the newest whole checkpoint; None without one."""
        remove_partial(self._directory)
        for path in self._checkpoints():
            found = _read(path)
            # A checkpoint with other settings remains from an earlier job of this name.
            if found is not None and found[1] in {"", self._settings or found[1]}:
                self._whole = [path]
                return found[0]
        return None

    def _copy_of_settings(self) -> str:
        """The settings in the newest file that has them; empty if none has.

        Raises:
            JobCorruptError: the note of the job's end is damaged.
        """
        if (note := self._note()) is not None:
            return note[1]
        for path in self._checkpoints():
            if (found := _read(path)) is not None:
                return found[1]
        return ""

    def finish(self, next_sequence: int, mean: str) -> None:
        """Record the finished mean, then drop the checkpoints."""
        note = {"next_sequence": next_sequence, "mean": mean, "settings": self._settings}
        with storing(f"the end of job {self._directory.name}"):
            write_atomic(self._directory / _FINISHED, json.dumps(note).encode())
        for path in self._checkpoints():
            _drop(path)
        self._replica.push(self._directory)

    def finished(self) -> FinishedJob | None:
        """Return the result of a finished job; None for an unfinished one.

        Raises:
            JobCorruptError: its note is damaged, or cannot be read.
        """
        note = self._note()
        return None if note is None else note[0]

    def _note(self) -> tuple[FinishedJob, str] | None:
        """Read the result and settings in the note of the job's end; None for an unfinished one.

        Raises:
            JobCorruptError: it is damaged, or cannot be read.
        """
        try:
            note = json.loads((self._directory / _FINISHED).read_text())
            finished = FinishedJob(int(note["next_sequence"]), str(note["mean"]))
            return finished, str(note["settings"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JobCorruptError(
                f"the note that job {self._directory.name} is finished is damaged ({error}); its "
                "mean is in the list of means if it was stored, else use another job name"
            ) from error

    def remove(self) -> None:
        """Delete the job.

        Raises:
            StorageError: the disk refuses.
        """
        with storing(f"the removal of job {self._directory.name}"):
            # The note of its end goes last: while it exists, the removal can be repeated.
            for path in sorted(self._directory.iterdir(), key=lambda path: path.name == _FINISHED):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            self._directory.rmdir()
        self._settings, self._whole = "", []
        self._replica.push(self._directory)

    def _checkpoints(self) -> list[Path]:
        """Checkpoints, newest first."""
        return sorted(self._directory.glob("checkpoint-*.safetensors"), reverse=True)


def _read(path: Path) -> tuple[JobState, str] | None:
    """Read the progress and settings in a checkpoint; None if it is damaged or unreadable."""
    try:
        content = path.read_bytes()
    except OSError as error:
        log.warning("checkpoint %s cannot be read (%s); the one before is used", path, error)
        return None
    if not path.stem.endswith(hashlib.sha256(content).hexdigest()):
        log.warning("checkpoint %s is damaged; the one before is used", path)
        return None
    tensors = load(content)
    state = json.loads(metadata(content)["progress"])
    accumulator = MeanAccumulator.from_sums(
        tensors["counts"], tensors["sums"], tensors.get("squares")
    )
    skipped = tuple(SkippedDocuments(reason, **rest) for reason, rest in state["skipped"].items())
    progress = JobState(
        accumulator, state["next_sequence"], bytes.fromhex(state["corpus"]), skipped
    )
    return progress, state.get("settings", "")


def _without_reason(entry: SkippedDocuments) -> dict[str, Any]:
    return {name: value for name, value in vars(entry).items() if name != "reason"}


def _drop(path: Path) -> None:
    """Remove an obsolete checkpoint; if that fails, nothing durable is lost."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("checkpoint %s cannot be removed: %s", path, error)
