"""Files of many vectors each, numbered from 0, all full but the last."""

import abc
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from actvec.client.bulk.sink import Row, differences
from actvec.client.errors import DataLoss, FailedPrecondition, ResourceExhausted
from actvec.client.files import FILE_DTYPE, Dtype, to_dtype
from actvec.client.vectors import Stamp, Vector
from actvec.client.whole import check_writable, sync_folder

ROWS_PER_FILE = 4096

# Memory holds one file, with room for all its rows: 43 GB of the longest vectors of Pythia-12B.
MAX_ROWS_PER_FILE = 1 << 20


class NumberedSink(abc.ABC):
    """Vectors in files of `rows_per_file` rows, in the order in which they are written.

    The last file is written anew, whole, at each `commit`, until it is full: so the files are the
    same however often a job was interrupted, and what is on disk is never more than one file's rows
    behind. Memory holds one file, and while it is written another copy of it.

    Attributes:
        folder: Where the files are.
    """

    # What the name of a complete file looks like; its one group is the number.
    _complete: ClassVar[re.Pattern[str]]

    def __init__(
        self,
        folder: str | Path,
        *,
        rows_per_file: int = ROWS_PER_FILE,
        dtype: Dtype = FILE_DTYPE,
        resume: bool = False,
    ) -> None:
        """Create the folder where it is missing.

        Args:
            folder: Where to write.
            rows_per_file: Vectors of a file.
            dtype: dtype of the numbers.
            resume: Whether to go on after the vectors that are there, which must be of the same
                `rows_per_file` and `dtype`.

        Raises:
            ValueError: `rows_per_file` is less than 1 or more than `MAX_ROWS_PER_FILE`.
            FailedPrecondition: vectors are there, and it is not to go on after them.
            DataLoss: a file is damaged or missing.
            ResourceExhausted: there is not the memory for the file that is gone on with.
            OSError: the folder cannot be created, read or written to.
        """
        check_rows_per_file(rows_per_file)
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        check_writable(self.folder)
        self._rows_per_file = rows_per_file
        self._dtype: Dtype = dtype
        self._number = 0
        self._rows: list[Row] = []
        self._values: NDArray[Any] | None = None
        self._stamp: dict[str, Any] | None = None
        self._checked: Stamp | None = None
        self._saved = 0
        if files := self._count_files():
            if not resume:
                raise FailedPrecondition(
                    f"{self.folder} holds vectors already: resume what made them, or give another"
                    " folder"
                )
            self._go_on_after(files - 1)

    def rows(self) -> Iterator[Row]:
        """See `Sink.rows`; in the order in which they were written."""
        last = self._count_files() - 1
        for number in range(last + 1):
            rows, _ = self._read(number)
            if len(rows) > self._rows_per_file or (
                number < last and len(rows) < self._rows_per_file
            ):
                raise DataLoss(
                    f"file {number} in {self.folder} has {len(rows)} rows, not"
                    f" {self._rows_per_file}: it was altered, or written with another rows_per_file"
                )
            yield from rows

    def write(self, vector: Vector) -> None:
        """See `Sink.write`; a full file is written at once."""
        if vector.stamp != self._checked:
            self._check_stamp(vector)
        numbers = to_dtype(vector.values, self._dtype)
        self._allocate(len(numbers))[len(self._rows)] = numbers
        self._rows.append(Row.of(vector))
        if len(self._rows) == self._rows_per_file:
            self.commit()
            self._number += 1
            # In this order: an interrupt between the two finds nothing to commit.
            self._rows = []
            self._saved = 0

    def commit(self) -> None:
        """See `Sink.commit`."""
        if len(self._rows) <= self._saved or self._values is None or self._stamp is None:
            return
        self._write(self._number, self._rows, self._values[: len(self._rows)], self._stamp)
        sync_folder(self.folder)
        self._saved = len(self._rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.commit()

    @abc.abstractmethod
    def _write(
        self, number: int, rows: list[Row], values: NDArray[Any], stamp: dict[str, Any]
    ) -> None:
        """Write a file whole, in place of the one of that number; `values` is `[rows, K * D]`."""

    @abc.abstractmethod
    def _read(self, number: int) -> tuple[list[Row], dict[str, Any]]:
        """The rows of a file and their stamp.

        Raises:
            DataLoss: it is damaged.
        """

    @abc.abstractmethod
    def _read_values(self, number: int) -> NDArray[Any]:
        """The vectors of a file, `[rows, K * D]`.

        Raises:
            DataLoss: it is damaged.
        """

    def _count_files(self) -> int:
        """How many complete files there are.

        Raises:
            DataLoss: one is missing among them.
        """
        names = (self._complete.fullmatch(path.name) for path in self.folder.iterdir())
        numbers = {int(name[1]) for name in names if name}
        missing = min(set(range(len(numbers))) - numbers, default=None)
        if missing is not None:
            raise DataLoss(f"file {missing} is missing in {self.folder}, and later ones are there")
        return len(numbers)

    def _go_on_after(self, last: int) -> None:
        rows, self._stamp = self._read(last)
        values = self._read_values(last)
        if values.dtype != self._dtype:
            raise FailedPrecondition(
                f"the vectors of {self.folder} are {values.dtype}, not {self._dtype}"
            )
        if len(rows) >= self._rows_per_file:
            self._number = last + 1
            return
        self._number = last
        self._rows = rows
        self._saved = len(rows)
        self._allocate(values.shape[1])[: len(rows)] = values[: len(rows)]

    def _check_stamp(self, vector: Vector) -> None:
        stamp = vector.stamp.to_dict()
        if self._stamp is None:
            self._stamp = stamp
        elif stamp != self._stamp:
            raise FailedPrecondition(
                f"the vector of {vector.id!a} does not go with those in {self.folder}:"
                f" {differences(self._stamp, stamp)}"
            )
        self._checked = vector.stamp

    def _allocate(self, width: int) -> NDArray[Any]:
        """The numbers of the file that is being filled, `[rows_per_file, K * D]`.

        Raises:
            ResourceExhausted: there is not so much memory.
        """
        if self._values is None:
            rows = self._rows_per_file
            try:
                self._values = np.empty((rows, width), self._dtype)
            except MemoryError as error:
                size = rows * width * np.dtype(self._dtype).itemsize
                raise ResourceExhausted(
                    f"a file of {rows:,} rows of {width:,} {self._dtype} numbers takes"
                    f" {size / 1e9:.1f} GB of memory, which is not to be had; give a smaller"
                    " rows_per_file"
                ) from error
        return self._values


def check_rows_per_file(rows: int) -> None:
    """Refuse what no file can have.

    Raises:
        ValueError: fewer rows than 1, or more than `MAX_ROWS_PER_FILE`.
    """
    if not 1 <= rows <= MAX_ROWS_PER_FILE:
        raise ValueError(
            f"rows_per_file is at least 1 and at most {MAX_ROWS_PER_FILE:,}, not {rows:,}"
        )
