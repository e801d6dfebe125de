"""What a folder of vectors was made of and how far it is, beside the vectors."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from actvec.client.bulk.sink import differences
from actvec.client.errors import DataLoss, FailedPrecondition
from actvec.client.whole import write_whole

_NAME = "manifest.json"
_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """The record of a job, `manifest.json` in its folder.

    Which documents are done is not in here: the vectors and the errors themselves tell.

    Attributes:
        run: Names the job.
        created_at: When it was begun, in ISO 8601.
        settings: What makes the files what they are: those of the vectors and of the layout.
        input: The documents' `identity` and `path`; None where they cannot be read again.
        stamp: The stamp of the vectors; None before the first one.
        vectors: Documents with a vector, at the last commit.
        failed: Documents without one, at the last commit.
        tokens: Tokens of the documents with a vector, at the last commit.
        finished_at: When it was finished, in ISO 8601; None before.
        version: Of this record's form.
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
        """The manifest of a folder; None where there is none.

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
                    f" {_VERSION}; take the actvec that wrote it"
                )
            return cls(**record)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise DataLoss(f"{path} is not what was written there: {error}") from error

    def save(self, folder: Path) -> None:
        """Write it, whole.

        Raises:
            OSError: it cannot be written.
        """
        write_whole(folder / _NAME, (json.dumps(asdict(self), indent=2) + "\n").encode())

    def check_continues(self, other: "Manifest", folder: Path) -> None:
        """Hold a job that is begun again to what it was begun with.

        Raises:
            FailedPrecondition: the settings or the input differ; the message says which.
        """
        if self.input is None or other.input is None:
            raise FailedPrecondition(
                f"the job in {folder} cannot be resumed: its input is a pipe, which nobody can"
                " read twice; begin again in another folder"
            )
        # The same file elsewhere is the same input.
        there, here = (
            settings | {f"input {name}": value for name, value in source.items() if name != "path"}
            for settings, source in ((self.settings, self.input), (other.settings, other.input))
        )
        if reasons := differences(there, here):
            raise FailedPrecondition(
                f"{folder} holds a job of other settings or another input: {reasons}. Resume it"
                " with what it was begun with, or give another folder"
            )
