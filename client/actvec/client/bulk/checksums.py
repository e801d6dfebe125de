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
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Forget an earlier job's lines, or continue after them."""
        self._log = LineLog(path)
        if resume:
            self._log.mend()
        else:
            path.unlink(missing_ok=True)

    def add(self, path: Path, written: Path) -> None:
        """Record a file before it gets its name, and make the record durable.

        Args:
            path: Its future path.
            written: Its present path.
        """
        self._log.add({"name": self._name(path)} | asdict(Content.of(written)))
        self._log.commit()

    def damage(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Describe the damage of each of these files that differs from what was written.

        Raises:
            DataLoss: the checksums themselves are damaged.
            OSError: a file cannot be read.
        """
        recorded = _recorded(self._log.path)
        found = ((path, _damage(path, recorded.get(self._name(path), []))) for path in paths)
        return {path: damage for path, damage in found if damage}

    def missing(self) -> list[str]:
        """List the recorded files that do not exist.

        Raises:
            DataLoss: the checksums themselves are damaged.
        """
        home = self._log.path.parent
        return [name for name in _recorded(self._log.path) if not (home / name).exists()]

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._log.close()

    def _name(self, path: Path) -> str:
        return path.relative_to(self._log.path.parent).as_posix()


def altered_files(log: Path) -> dict[Path, str]:
    """What is wrong with each file that a `checksums.jsonl` names; only reads.

    Raises:
        DataLoss: the checksums themselves are damaged.
        OSError: a file cannot be read.
    """
    found = {log.parent / name: versions for name, versions in _recorded(log).items()}
    damage = ((path, _damage(path, versions)) for path, versions in found.items())
    return {path: reason for path, reason in damage if reason}


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
