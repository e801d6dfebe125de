"""Where a job stands, durable: sums and how far they go, in files that prove themselves.

A checkpoint's name holds its SHA-256, so that a cut or altered one is recognised; the one before is
kept for that case.
"""

import hashlib
import json
import logging
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

    def refresh(self) -> None:
        """Bring what another machine has made of the job.

        Raises:
            StorageError: it cannot be read now.
        """
        self._replica.pull(self._directory)

    def settings(self) -> str | None:
        """The settings that the job was opened with; None for a new job."""
        try:
            return self._settings_file.read_text()
        except FileNotFoundError:
            return None

    def create(self, settings: str) -> None:
        """Begin a job."""
        with storing(f"job {self._directory.name}"):
            self._directory.mkdir(parents=True, exist_ok=True)
            write_whole(self._settings_file, settings.encode())
        self._replica.push(self._directory)

    def save(self, progress: Progress) -> None:
        """Make progress durable, then drop what is older than the checkpoint before.

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
        }
        content = save(tensors, metadata={"progress": json.dumps(state)})
        digest = hashlib.sha256(content).hexdigest()
        path = self._directory / f"checkpoint-{progress.next_sequence:020d}-{digest}.safetensors"
        with storing(f"a checkpoint of job {self._directory.name}"):
            write_whole(path, content)
            for old in self._checkpoints()[_KEPT:]:
                old.unlink(missing_ok=True)
        self._replica.push(self._directory)

    def load(self) -> Progress | None:
        """The newest checkpoint that is whole; None where there is none."""
        remove_partial(self._directory)
        for path in self._checkpoints():
            content = path.read_bytes()
            if not path.stem.endswith(hashlib.sha256(content).hexdigest()):
                log.warning("checkpoint %s is damaged; the one before is used", path)
                continue
            tensors = load(content)
            header = int.from_bytes(content[:8], "little")
            state = json.loads(json.loads(content[8 : 8 + header])["__metadata__"]["progress"])
            accumulator = MeanAccumulator.from_sums(
                tensors["counts"], tensors["sums"], tensors.get("squares")
            )
            skipped = {reason: Skipped(**entry) for reason, entry in state["skipped"].items()}
            corpus = bytes.fromhex(state["corpus"])
            return Progress(accumulator, state["next_sequence"], corpus, skipped)
        return None

    def finish(self, next_sequence: int, mean: str) -> None:
        """Note the finished mean, then drop the checkpoints."""
        content = json.dumps({"next_sequence": next_sequence, "mean": mean})
        with storing(f"the end of job {self._directory.name}"):
            write_whole(self._directory / "finished.json", content.encode())
            for path in self._checkpoints():
                path.unlink(missing_ok=True)
        self._replica.push(self._directory)

    def finished(self) -> FinishedJob | None:
        """What a finished job came to; None for an unfinished one.

        Raises:
            JobCorruptError: the note of it is damaged.
        """
        try:
            state = json.loads((self._directory / "finished.json").read_text())
            return FinishedJob(int(state["next_sequence"]), str(state["mean"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise JobCorruptError(
                f"the note that job {self._directory.name} is finished is damaged; its mean is in "
                "the list of means if it was stored, else use another job name"
            ) from error

    def remove(self) -> None:
        """Forget the job."""
        for path in self._directory.glob("*"):
            path.unlink(missing_ok=True)
        self._directory.rmdir()
        self._replica.push(self._directory)

    def _checkpoints(self) -> list[Path]:
        """Newest first."""
        return sorted(self._directory.glob("checkpoint-*.safetensors"), reverse=True)
