"""Where a job stands, durable: sums and how far they go, in files that prove themselves.

A checkpoint's name holds its SHA-256, so that a cut or altered one is recognized; the one before is
kept for that case, and serves as well if the newest cannot be read at all. Every checkpoint also
holds the job's settings, which so outlive their own file.
"""

import contextlib
import hashlib
import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.numpy import load, save

from actvec.pooling import MeanAccumulator
from actvec.server.errors import JobCorruptError
from actvec.server.means.replica import NO_REPLICA, Replica
from actvec.server.means.whole import remove_partial, storing, write_whole

log = logging.getLogger(__name__)

EMPTY_CORPUS = bytes(32)
_KEPT = 2
_FINISHED = "finished.json"


@dataclass
class Skipped:
    """Documents that were left out for one reason, and the first of them."""

    documents: int
    first_message: str
    first_id: str


@dataclass
class Progress:
    """A job's sums over the documents below `next_sequence`.

    Attributes:
        accumulator: The sums.
        next_sequence: How many documents were added or skipped.
        corpus: The digest that names them, `CorpusMeanCommit.corpus_sha256`.
        skipped: Those without a part in the sums, by the name of a google.rpc code.
    """

    accumulator: MeanAccumulator
    next_sequence: int = 0
    corpus: bytes = EMPTY_CORPUS
    skipped: dict[str, Skipped] = field(default_factory=dict)

    def skip(self, reason: str, message: str, document: str) -> None:
        """Count a document that is left out."""
        entry = self.skipped.setdefault(reason, Skipped(0, message, document))
        entry.documents += 1

    def merge(self, later: "Progress") -> None:
        """Take over the documents that follow."""
        self.accumulator.merge(later.accumulator)
        self.next_sequence = later.next_sequence
        self.corpus = later.corpus
        for reason, theirs in later.skipped.items():
            ours = self.skipped.setdefault(
                reason, Skipped(0, theirs.first_message, theirs.first_id)
            )
            ours.documents += theirs.documents


@dataclass(frozen=True)
class FinishedJob:
    """A job that has made its mean.

    Attributes:
        documents: How many documents were added or skipped.
        mean: The mean's id.
    """

    documents: int
    mean: str


class JobDirectory:
    """The files of one job. Methods touch the disk: call them off the event loop.

    Args:
        directory: Where they are.
        replica: Where they are shared with other machines.
    """

    def __init__(self, directory: Path, replica: Replica = NO_REPLICA) -> None:
        self._directory = directory
        self._replica = replica
        self._settings_file = directory / "settings.json"
        self._settings = ""
        # Checkpoints that are known to be whole, newest first.
        self._whole: list[Path] = []

    def refresh(self) -> None:
        """Bring what another machine has made of the job.

        Raises:
            StorageError: it cannot be read now.
        """
        self._replica.pull(self._directory)

    def settings(self) -> str | None:
        """The settings that the job was opened with, as JSON; None for a job without progress.

        If their file is damaged, they are those of the newest checkpoint that is whole, or of the
        note of the job's end.

        Raises:
            JobCorruptError: their file is damaged, and there is no copy of them.
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
                    write_whole(self._settings_file, self._settings.encode())
            elif self._checkpoints():
                raise JobCorruptError(
                    f"the settings of job {self._directory.name} cannot be read, and no checkpoint "
                    f"has a copy of them: {error}; use another job name"
                ) from error
        return self._settings or None

    def create(self, settings: str) -> None:
        """Begin a job. `settings` is JSON."""
        with storing(f"job {self._directory.name}"):
            self._directory.mkdir(parents=True, exist_ok=True)
            write_whole(self._settings_file, settings.encode())
        self._settings = settings
        self._replica.push(self._directory)

    def save(self, progress: Progress) -> None:
        """Make progress durable, then drop all checkpoints but this and the whole one before.

        Raises:
            StorageError: the disk is full or cannot be written; the checkpoints before stay.
        """
        accumulator = progress.accumulator
        tensors = {"counts": accumulator.counts, "sums": accumulator.sums}
        if accumulator.squares is not None:
            tensors["squares"] = accumulator.squares
        state = {
            "next_sequence": progress.next_sequence,
            "corpus": progress.corpus.hex(),
            "skipped": {reason: vars(skipped) for reason, skipped in progress.skipped.items()},
            "settings": self._settings,
        }
        content = save(tensors, metadata={"progress": json.dumps(state)})
        digest = hashlib.sha256(content).hexdigest()
        path = self._directory / f"checkpoint-{progress.next_sequence:020d}-{digest}.safetensors"
        with storing(f"a checkpoint of job {self._directory.name}"):
            write_whole(path, content)
        self._whole = [path, *(one for one in self._whole if one != path)][:_KEPT]
        for old in set(self._checkpoints()) - set(self._whole):
            _drop(old)
        self._replica.push(self._directory)

    def load(self) -> Progress | None:
        """The newest checkpoint that is whole; None without one."""
        remove_partial(self._directory)
        for path in self._checkpoints():
            found = _read(path)
            # One of other settings is of a job of this name that was being removed.
            if found is not None and found[1] in {"", self._settings or found[1]}:
                self._whole = [path]
                return found[0]
        return None

    def _copy_of_settings(self) -> str:
        """The settings in the newest file that has them; empty if none has."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            note = json.loads((self._directory / _FINISHED).read_text())
            return str(note["settings"])
        for path in self._checkpoints():
            if (found := _read(path)) is not None:
                return found[1]
        return ""

    def finish(self, next_sequence: int, mean: str) -> None:
        """Note the finished mean, then drop the checkpoints."""
        note = {"next_sequence": next_sequence, "mean": mean, "settings": self._settings}
        with storing(f"the end of job {self._directory.name}"):
            write_whole(self._directory / _FINISHED, json.dumps(note).encode())
        for path in self._checkpoints():
            _drop(path)
        self._replica.push(self._directory)

    def finished(self) -> FinishedJob | None:
        """What a finished job came to; None for an unfinished one.

        Raises:
            JobCorruptError: the note of it is damaged, or cannot be read.
        """
        try:
            state = json.loads((self._directory / _FINISHED).read_text())
            return FinishedJob(int(state["next_sequence"]), str(state["mean"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JobCorruptError(
                f"the note that job {self._directory.name} is finished is damaged ({error}); its "
                "mean is in the list of means if it was stored, else use another job name"
            ) from error

    def remove(self) -> None:
        """Forget the job.

        Raises:
            StorageError: the disk refuses.
        """
        with storing(f"the removal of job {self._directory.name}"):
            # The note of its end last: as long as it is there, half a removal is repeated.
            for path in sorted(self._directory.iterdir(), key=lambda path: path.name == _FINISHED):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            self._directory.rmdir()
        self._settings, self._whole = "", []
        self._replica.push(self._directory)

    def _checkpoints(self) -> list[Path]:
        """Newest first."""
        return sorted(self._directory.glob("checkpoint-*.safetensors"), reverse=True)


def _read(path: Path) -> tuple[Progress, str] | None:
    """The progress and the settings in a checkpoint; None if it is damaged or cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        log.warning("checkpoint %s cannot be read (%s); the one before is used", path, error)
        return None
    if not path.stem.endswith(hashlib.sha256(content).hexdigest()):
        log.warning("checkpoint %s is damaged; the one before is used", path)
        return None
    tensors = load(content)
    header = int.from_bytes(content[:8], "little")
    state = json.loads(json.loads(content[8 : 8 + header])["__metadata__"]["progress"])
    accumulator = MeanAccumulator.from_sums(
        tensors["counts"], tensors["sums"], tensors.get("squares")
    )
    skipped = {reason: Skipped(**entry) for reason, entry in state["skipped"].items()}
    progress = Progress(
        accumulator, state["next_sequence"], bytes.fromhex(state["corpus"]), skipped
    )
    return progress, state.get("settings", "")


def _drop(path: Path) -> None:
    """Remove a checkpoint that is not needed; what is durable does not depend on it."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("checkpoint %s cannot be removed: %s", path, error)
