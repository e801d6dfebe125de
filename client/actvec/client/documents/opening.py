"""Opens files of JSON lines: plain, gzip or Zstandard, standard input, pipes."""

import errno
import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from actvec.client.errors import SourceBroken, SourceDamaged
from actvec.client.extras import import_extra

# Opens a file anew; what it gives need not be seekable.
Opener = Callable[[], BinaryIO]

STDIN = Path("-")

# Endings of files of JSON lines -> how they are compressed.
_LINES = {
    f"{kind}{ending}": compression
    for kind in (".json", ".jsonl")
    for ending, compression in (("", ""), (".gz", "gzip"), (".zst", "zstd"))
}
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BUFFER = 1 << 20


def compression_of(name: str) -> str | None:
    """How a file of JSON lines of that name is compressed: "", "gzip" or "zstd".

    None if it is not a file of JSON lines.
    """
    lower = name.lower()
    return next((value for ending, value in _LINES.items() if lower.endswith(ending)), None)


def open_stdin() -> BinaryIO:
    """Standard input, decompressed if it begins as gzip or Zstandard does."""
    raw = sys.stdin.buffer
    start = raw.peek(4) if isinstance(raw, io.BufferedReader) else b""
    compression = next((value for magic, value in _MAGIC.items() if start.startswith(magic)), "")
    return decompressed(raw, compression) if compression else raw


def decompressed(raw: BinaryIO, compression: str) -> BinaryIO:
    """The content of a compressed file, read as a stream.

    Args:
        raw: The file, at its beginning.
        compression: "", "gzip" or "zstd".

    Raises:
        EOFError: it has no byte at all, which no archive has.
        MissingExtra: Zstandard needs pyarrow, which is not installed.
    """
    if not compression:
        return raw
    file = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw, _BUFFER)  # type: ignore[type-var]
    if not file.peek(1):
        raise EOFError("the archive is empty")
    if compression == "gzip":
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    # Of the readers of Zstandard it is Arrow's that notices a file which was cut short.
    stream = import_extra("pyarrow", "data").CompressedInputStream(file, "zstd")
    return io.BufferedReader(stream, _BUFFER)


def is_repeatable(path: Path) -> bool:
    """Whether a file can be read a second time, as a pipe cannot.

    Raises:
        OSError: there is no such file.
    """
    return path != STDIN and stat.S_ISREG(path.stat().st_mode)


def not_a_file(mode: int) -> str | None:
    """What is at a path that cannot be read to an end, by its mode; None for what can be."""
    for fits, kind in (
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if fits(mode):
            return kind
    return None


def source_broken(name: str, where: str, error: Exception) -> SourceBroken:
    """The error for a file that ends before its end.

    `SourceDamaged` if the content is at fault, so that reading it again is of no use.
    """
    message = f"{name}, {where}: from here on the file cannot be read: {error}."
    if is_damage(error):
        return SourceDamaged(f"{message} It was cut short or damaged: make it or fetch it again")
    return SourceBroken(f"{message} Run again: a disk or a network failed")


def is_damage(error: Exception) -> bool:
    """Whether an error is of a file's content and not of reading it."""
    if isinstance(error, OSError):
        # Decompressors raise OSError without a number, an operating system never does.
        return error.errno is None
    return isinstance(error, EOFError | zlib.error | ValueError)


def require_readable(path: Path) -> None:
    """Find out without opening it: a pipe can be opened only once.

    Raises:
        OSError: there is no such file, or this user may not read it.
    """
    path.stat()
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
