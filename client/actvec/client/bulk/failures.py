"""The list of documents without a vector."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from actvec.client.bulk.line_log import LineLog, read_lines
from actvec.client.errors import DataLoss
from actvec.client.files import atomic_file, write_atomic
from actvec.client.records.vectors import Failure

# Errors that may have passed when a job resumes: a lost engine, a server without memory, a file on
# a disk that was away. Other codes concern the document itself.
_PASSING = {"INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN"}


class ErrorLog(LineLog):
    """A log with a line per failed document; the file does not exist if none failed.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Forget an earlier job's list, or continue it without the documents to retry.

        A resumed job retries the documents whose errors may have passed, and the one behind a
        half-written line.

        Raises:
            DataLoss: a line is damaged.
            OSError: it cannot be removed, read or written.
        """
        super().__init__(path)
        if resume:
            _keep_final(path)
        else:
            path.unlink(missing_ok=True)

    @property
    def empty(self) -> bool:
        """Whether nothing failed."""
        return not self.path.exists()

    def indices(self) -> Iterator[int]:
        """The numbers of the failed documents.

        Raises:
            DataLoss: a line is damaged.
            OSError: it cannot be read.
        """
        return (index for index, _, _ in _read(self.path))

    def write(self, failure: Failure) -> None:
        """Append a failure at once, so that a killed job leaves it behind."""
        self.add(failure.to_dict())


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write such a list atomically; if nothing failed, remove an earlier one."""
    if failures:
        lines = (json.dumps(failure.to_dict()) + "\n" for failure in failures)
        write_atomic(path, "".join(lines).encode())
    else:
        path.unlink(missing_ok=True)


def first_failure(path: Path) -> str | None:
    """Describe the first failure in a list, in one line; None if there is none."""
    for _, line in read_lines(path):
        record = json.loads(line)
        return f"{record['id']!a}: {record['message']}"
    return None


def _read(path: Path) -> Iterator[tuple[int, str, bytes]]:
    """Yield the number and code of each document in a list, with its line, for all whole lines.

    Raises:
        DataLoss: a line is damaged.
        OSError: it cannot be read.
    """
    for number, line in read_lines(path):
        try:
            record = json.loads(line)
            index, code = record["index"], record["code"]
        except (ValueError, LookupError, TypeError):
            index = code = None
        if not isinstance(index, int) or index < 0 or not isinstance(code, str):
            raise DataLoss(f"{path}, line {number}: not what was written there")
        yield index, code, line


def _keep_final(path: Path) -> None:
    if not path.exists():
        return
    with atomic_file(path) as kept, kept.open("wb") as file:
        file.writelines(line for _, code, line in _read(path) if code not in _PASSING)
    if not path.stat().st_size:
        path.unlink()
