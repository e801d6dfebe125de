"""The manifest of a folder of vectors: what made them, and the progress."""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from actvec.client.errors import DataLoss, FailedPrecondition
from actvec.client.files import write_json
from actvec.client.records.differences import differences

_NAME = "manifest.json"
_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """The record of a job, `manifest.json` in its folder.

    It does not list finished documents: the vectors and the errors show them.

    Attributes:
        run: The job's run id.
        created_at: When the job started, in ISO 8601.
        settings: The settings that determine the files: those of the vectors and of the layout.
        input: The source's `identity` and `path`; None if it cannot be read twice.
        stamp: The stamp of the vectors; None before the first one.
        vectors: Documents with a vector, at the last commit.
        failed: Documents without one, at the last commit.
        tokens: Tokens of the documents with a vector, at the last commit.
        finished_at: When the job finished, in ISO 8601; None before.
        version: Version of this record's format.
    """

    run: str
    created_at: str
    settings: dict[str, Any]
    input: dict[str, Any] | None
    stamp: dict[str, Any] | None = None
    vectors: int = 0
    failed: int = 0
    tokens: int = 0
    finished_at: str | None = None
    version: int = field(default=_VERSION)

    @classmethod
    def load(cls, folder: Path) -> "Manifest | None":
        """Load the manifest of a folder; None if there is none.

        Raises:
            DataLoss: it is damaged.
            FailedPrecondition: a later version of actvec wrote it.
            OSError: it cannot be read.
        """
        path = folder / _NAME
        try:
            record = json.loads(path.read_bytes())
            if not isinstance(record, dict):
                raise TypeError(f"an object is wanted, not {record!r:.40}")
            if record.get("version") != _VERSION:
                raise FailedPrecondition(
                    f"{path} is of version {record.get('version')!r}, and this actvec knows"
                    f" {_VERSION}; use the version of actvec that wrote it"
                )
            return cls(**record)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise DataLoss(f"{path} is not what was written there: {error}") from error

    def save(self, folder: Path) -> None:
        """Write the manifest atomically."""
        write_json(folder / _NAME, asdict(self))

    def check_continues(self, other: "Manifest", folder: Path) -> None:
        """Check that another run of a job has the settings and the input of its start.

        Raises:
            FailedPrecondition: they differ; the message says how.
        """
        if self.input is None or other.input is None:
            raise FailedPrecondition(
                f"the job in {folder} cannot be resumed: its input is a pipe, which nobody can"
                " read twice; begin again in another folder"
            )
        # The same file under another path is the same input.
        there, here = (
            settings | {f"input {name}": value for name, value in source.items() if name != "path"}
            for settings, source in ((self.settings, self.input), (other.settings, other.input))
        )
        if reasons := differences(there, here):
            raise FailedPrecondition(
                f"{folder} holds a job of other settings or another input: {reasons}. Resume it"
                " with what it was begun with, or give another folder"
            )


def now() -> str:
    """The time, as a manifest has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
