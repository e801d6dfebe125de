"""Files of many vectors each, numbered from 0, all full but the last."""

import abc
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from actvec.client.bulk.checksums import Checksums, altered_files, damaged
from actvec.client.bulk.sinks.sink import FILE_DTYPE, Dtype, Row, Sink, to_dtype
from actvec.client.errors import DataLoss, FailedPrecondition, ResourceExhausted
from actvec.client.files import atomic_file, check_writable, given_path, sync_folder
from actvec.client.records.differences import differences
from actvec.client.records.stamp import Stamp
from actvec.client.records.vectors import Vector
from actvec.client.stored.parts import Part, damage

ROWS_PER_FILE = 4096

# Limit on the bytes of a file's numbers, beyond which it gets fewer rows: 36 layers and 4 pools of
# a model of width 5120 take 1.5 MB, and 4096 such rows 6 GB.
_FILE_BYTES = 1 << 30

# Memory holds one file, with room for all its rows: 43 GB for the longest vectors of Pythia-12B.
MAX_ROWS_PER_FILE = 1 << 20


class NumberedSink(Sink, abc.ABC):
    """Vectors in files of `rows_per_file` rows, in the order of their writes.

    Each `commit` rewrites the last file, atomically, until it is full. So the files do not depend
    on how often a job was interrupted, and the disk is never more than one file's rows behind.
    Memory holds one file, and a second copy of it during a write.

    Attributes:
        folder: The folder of the files.
        committed: See `Sink`.
    """

    committed: int = 0

    # The name of a complete file; its one group is the number.
    _complete: ClassVar[re.Pattern[str]]

    def __init__(
        self,
        folder: str | Path,
        *,
        rows_per_file: int | None = None,
        dtype: Dtype = FILE_DTYPE,
        resume: bool = False,
        checksums: Checksums | None = None,
    ) -> None:
        """Open the folder; create it if it is missing.

        Args:
            folder: The folder to write to.
            rows_per_file: Vectors per file. Default: `ROWS_PER_FILE`, or fewer if they would exceed
                1 GiB.
            dtype: dtype of the numbers.
            resume: Whether to continue after the vectors in the folder, which must have the same
                `rows_per_file` and `dtype`.
            checksums: Checksums of the files: existing files are checked against them, new ones
                recorded.

        Raises:
            ValueError: `rows_per_file` is less than 1 or more than `MAX_ROWS_PER_FILE`.
            FailedPrecondition: the folder holds vectors, and `resume` is false.
            DataLoss: a file is damaged or missing.
            ResourceExhausted: there is no memory for the file to continue.
            MissingExtra: a package that the format needs is not installed.
            OSError: the folder cannot be created, read or written to.
        """
        if rows_per_file is not None:
            check_rows_per_file(rows_per_file)
        self._prepare()
        self.folder = given_path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        check_writable(self.folder)
        self._rows_per_file = rows_per_file
        self._dtype: Dtype = dtype
        self._number = 0
        self._rows: list[Row] = []
        self._values: NDArray[Any] | None = None
        self._stamp: dict[str, Any] | None = None
        self._width = 0
        self._checked: Stamp | None = None
        self._saved = 0
        self._checksums = checksums
        if files := self._count_files():
            if not resume:
                raise FailedPrecondition(
                    f"{self.folder} holds vectors already: resume what made them, or give another"
                    " folder"
                )
            self._verify(files)
            self._continue_after(files - 1)

    def rows(self) -> Iterator[Row]:
        """See `Sink.rows`; in the order of their writes."""
        last = self._count_files() - 1
        for number in range(last + 1):
            rows = rows_of(self._part(number))
            count, full = len(rows), self._full
            if count > full or (number < last and count < full):
                raise DataLoss(
                    f"file {number} in {self.folder} has {count} rows, not {full}: it was altered,"
                    " or written with another rows_per_file"
                )
            yield from rows

    def write(self, vector: Vector) -> None:
        """See `Sink.write`; a full file is written at once."""
        if vector.stamp != self._checked:
            self._check_stamp(vector)
        numbers = to_dtype(vector.values, self._dtype)
        self._width = len(numbers)
        if len(self._rows) == self._full:  # its commit failed
            self._end_file()
        self._allocate()[len(self._rows)] = numbers
        self._rows.append(Row.of(vector))
        if len(self._rows) == self._full:
            self._end_file()

    def commit(self) -> None:
        """See `Sink.commit`."""
        if len(self._rows) <= self._saved or self._values is None:
            return
        self._write(self._number, self._rows, self._values[: len(self._rows)])
        sync_folder(self.folder)
        self.committed += len(self._rows) - self._saved
        self._saved = len(self._rows)

    def _end_file(self) -> None:
        self.commit()
        self._number += 1
        # The order matters: an interrupt between the two finds nothing to commit.
        self._rows = []
        self._saved = 0

    @contextlib.contextmanager
    def _whole_file(self, path: Path) -> Iterator[Path]:
        """As `atomic_file`, but record the checksum before the file becomes `path`."""
        with atomic_file(path) as temporary:
            yield temporary
            if self._checksums is not None:
                self._checksums.add(path, temporary)

    @abc.abstractmethod
    def _paths(self, number: int) -> list[Path]:
        """The files with a number."""

    @abc.abstractmethod
    def _write(self, number: int, rows: list[Row], values: NDArray[Any]) -> None:
        """Write a file atomically, in place of the one with its number.

        Args:
            number: The file's number.
            rows: The entries beside the vectors.
            values: The vectors, `[rows, L * K * D]`.
        """

    @abc.abstractmethod
    def _part(self, number: int) -> Part:
        """Read a file, whose vectors are read on request.

        Raises:
            DataLoss: it is damaged.
        """

    def _prepare(self) -> None:
        """Prepare the sink, before it reads or writes.

        Raises:
            MissingExtra: a package that the format needs is not installed.
        """

    @property
    def _stamp_and_shape(self) -> tuple[dict[str, Any], list[int]]:
        """The stamp of all vectors as JSON values, and L, K and D of each."""
        stamp = self._stamp or {}
        layers, pools = Stamp.parse(stamp).shape
        return stamp, [layers, pools, self._width // (layers * pools)]

    def _count_files(self) -> int:
        """Count the complete files.

        Raises:
            DataLoss: one of them is missing.
        """
        names = (self._complete.fullmatch(path.name) for path in self.folder.iterdir())
        numbers = {int(name[1]) for name in names if name}
        missing = min(set(range(len(numbers))) - numbers, default=None)
        if missing is not None:
            raise damaged({self._paths(missing)[-1]: "is missing"}, self._advice(missing))
        return len(numbers)

    def _verify(self, files: int) -> None:
        """Check the files against their checksums.

        Raises:
            DataLoss: some of them differ.
        """
        if self._checksums is None:
            return
        numbers = {path: number for number in range(files) for path in self._paths(number)}
        if altered := altered_files(self._checksums.path, numbers):
            raise damaged(altered, self._advice(min(numbers[path] for path in altered)))

    def _advice(self, number: int) -> str:
        """Advise on a damaged or missing file."""
        return (
            f"Restore it from a copy; or remove all files from {self._paths(number)[0].stem} on and"
            " resume, and their documents are computed again"
        )

    def _continue_after(self, last: int) -> None:
        part = self._part(last)
        values = part.read()
        self._stamp, self._width = dict(part.stamp), values.shape[1]
        if values.dtype != self._dtype:
            raise FailedPrecondition(
                f"the vectors of {self.folder} are {values.dtype}, not {self._dtype}"
            )
        count = len(part.facts)
        if count >= self._full:
            self._number = last + 1
            return
        self._number = last
        self._rows = rows_of(part)
        self._saved = count
        self._allocate()[:count] = values

    @property
    def _full(self) -> int:
        """Number of rows per file, once the width of the vectors is known."""
        if self._rows_per_file is not None:
            return self._rows_per_file
        size = self._width * np.dtype(self._dtype).itemsize
        return min(ROWS_PER_FILE, max(1, _FILE_BYTES // size))

    def _check_stamp(self, vector: Vector) -> None:
        stamp = vector.stamp.to_dict()
        if self._stamp is None:
            self._stamp = stamp
        elif reasons := differences(Stamp.complete(self._stamp), stamp):
            raise FailedPrecondition(
                f"the vector of {vector.id!a} does not go with those in {self.folder}: {reasons}"
            )
        self._checked = vector.stamp

    def _allocate(self) -> NDArray[Any]:
        """Return the buffer of the file being filled, `[rows, L * K * D]`.

        Raises:
            ResourceExhausted: there is not enough memory.
        """
        if self._values is None:
            rows, width = self._full, self._width
            try:
                self._values = np.empty((rows, width), self._dtype)
            except MemoryError as error:
                size = rows * width * np.dtype(self._dtype).itemsize
                raise ResourceExhausted(
                    f"a file of {rows:,} rows of {width:,} {self._dtype} numbers needs "
                    f"{size / 1e9:.1f} GB of memory, more than is free; give a smaller "
                    "rows_per_file"
                ) from error
        return self._values


def rows_of(part: Part) -> list[Row]:
    """The entries beside the vectors of a file.

    Raises:
        DataLoss: one is damaged.
    """
    with damage(part.paths[0]):
        return [
            Row.parse({**facts, "columns": columns})
            for facts, columns in zip(part.facts, part.columns, strict=True)
        ]


def check_rows_per_file(rows: int) -> None:
    """Check a number of rows per file.

    Raises:
        ValueError: it is less than 1, or more than `MAX_ROWS_PER_FILE`.
    """
    if not 1 <= rows <= MAX_ROWS_PER_FILE:
        raise ValueError(
            f"rows_per_file is at least 1 and at most {MAX_ROWS_PER_FILE:,}, not {rows:,}"
        )
