"""The size and SHA-256 of each file of a job."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from actvec.client.bulk.line_log import LineLog, read_lines
from actvec.client.errors import DataLoss
from actvec.client.files import Content

# The most damaged files that an error names.
_MOST_NAMES = 5


class Checksums:
    """`checksums.jsonl`: one line with `name`, `bytes` and `sha256` per file that a job writes.

    A line becomes durable before its file gets its name. So whatever ends a job, each existing file
    matches a line. A rewritten file has one line per version, and may match any of them: an earlier
    version has fewer rows, whose documents are computed again, or the same rows with columns of
    narrower types.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        """Continue after the lines of a file; it is created with the first line."""
        self.path = path
        self._log = LineLog(path)
        self._log.mend()

    def forget(self) -> None:
        """Forget the lines of an earlier job, before the first one of this job."""
        self.path.unlink(missing_ok=True)

    def add(self, path: Path, written: Path) -> None:
        """Record a file before it gets its name, and make the record durable.

        Args:
            path: Its future path.
            written: Its present path.
        """
        name = path.relative_to(self.path.parent).as_posix()
        self._log.add({"name": name} | asdict(Content.of(written)))
        self._log.commit()

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._log.close()


def altered_files(log: Path, files: Iterable[Path] | None = None) -> dict[Path, str]:
    """Describe the damage of each file that differs from what was written; only reads.

    Args:
        log: A `checksums.jsonl`.
        files: The files to compare. Default: all that it names.

    Raises:
        DataLoss: the checksums themselves are damaged.
        OSError: a file cannot be read.
    """
    recorded = {log.parent / name: versions for name, versions in _recorded(log).items()}
    compared = recorded if files is None else files
    damage = ((path, _damage(path, recorded.get(path, []))) for path in compared)
    return {path: reason for path, reason in damage if reason}


def missing_files(log: Path) -> list[str]:
    """List the files that a `checksums.jsonl` names and that do not exist.

    Raises:
        DataLoss: the checksums themselves are damaged.
    """
    return [name for name in _recorded(log) if not (log.parent / name).exists()]


def count_versions(log: Path) -> dict[str, int]:
    """Count the versions of each file that a `checksums.jsonl` names, in the order of the first.

    Raises:
        DataLoss: the checksums themselves are damaged.
        OSError: they cannot be read.
    """
    return {name: len(versions) for name, versions in _recorded(log).items()}


def damaged(damage: dict[Path, str], advice: str) -> DataLoss:
    """Return the error for damaged files: which, how, and what to do."""
    first = [f"{path} {what}" for path, what in list(damage.items())[:_MOST_NAMES]]
    more = [f"{len(damage) - len(first):,} more"] if len(damage) > len(first) else []
    return DataLoss(f"{'; '.join(first + more)}. {advice}")


def _recorded(log: Path) -> dict[str, list[Content]]:
    recorded = defaultdict(list)
    for number, line in read_lines(log):
        try:
            record = json.loads(line)
            recorded[record.pop("name")].append(Content(**record))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataLoss(
                f"{log}, line {number}: not as it was written; restore the file from"
                " a copy, or begin again in another folder"
            ) from error
    return recorded


def _damage(path: Path, versions: list[Content]) -> str:
    if not versions:
        return "has no line in the checksums" if path.exists() else "is missing"
    try:
        size = path.stat().st_size
        if size not in {version.bytes for version in versions}:
            return f"has {size:,} bytes, not {versions[-1].bytes:,}"
        return "" if Content.of(path) in versions else "was altered: its SHA-256 is another"
    except FileNotFoundError:
        return "is missing"
