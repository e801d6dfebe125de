"""Opens files of lines, compressed or not, standard input and pipes."""

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from actvec.client.errors import SourceBroken, SourceDamaged, UnsupportedInput
from actvec.client.extras import import_extra

# Opens a file from its start; the result need not be seekable.
Opener = Callable[[], BinaryIO]

STDIN = Path("-")

# The delimiters of tables by their suffixes; JSON lines have none.
_DELIMITERS = {".json": "", ".jsonl": "", ".ndjson": "", ".csv": ",", ".tsv": "\t"}
_COMPRESSIONS = {"": "", ".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bz2"}
# The compression and delimiter of files of lines by their suffixes.
_LINES = {
    f"{kind}{ending}": (compression, delimiter)
    for kind, delimiter in _DELIMITERS.items()
    for ending, compression in _COMPRESSIONS.items()
}
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zX": "xz", b"BZh": "bz2"}
_BUFFER = 1 << 20

_STREAMS: dict[str, Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]] = {
    "xz": lzma.LZMADecompressor,
    "bz2": bz2.BZ2Decompressor,
}
# Compressed bytes that are decompressed at a time.
_PIECE = 1 << 16


def compression_of(name: str) -> str | None:
    """The compression of JSON lines or of a table, by the file's name: "", "gzip" and so on.

    None if the name is of neither.
    """
    return _form_of(name)[0]


def delimiter_of(name: str) -> str:
    """The delimiter of a table, by its file's name; empty for JSON lines."""
    return _form_of(name)[1]


def _form_of(name: str) -> tuple[str | None, str]:
    lower = name.lower()
    return next((form for ending, form in _LINES.items() if lower.endswith(ending)), (None, ""))


def standard_input() -> BinaryIO:
    """Standard input.

    Raises:
        UnsupportedInput: this program was started without one.
    """
    if sys.stdin is None:
        raise UnsupportedInput("standard input is closed; name a file, or write to a pipe")
    return sys.stdin.buffer


def open_stdin() -> BinaryIO:
    """Open standard input, and decompress it if it starts as an archive does.

    Raises:
        UnsupportedInput: this program was started without one.
    """
    raw = standard_input()
    start = raw.peek(4) if isinstance(raw, io.BufferedReader) else b""
    compression = next((value for magic, value in _MAGIC.items() if start.startswith(magic)), "")
    return decompressed(raw, compression) if compression else raw


def decompressed(raw: BinaryIO, compression: str) -> BinaryIO:
    """Decompress a file as a stream.

    Args:
        raw: The file, at its start.
        compression: "", "gzip", "zstd", "xz" or "bz2".

    Raises:
        EOFError: the file is empty, which no archive is.
        MissingExtra: Zstandard needs pyarrow, which is not installed.
    """
    if not compression:
        return raw
    file = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw, _BUFFER)  # type: ignore[type-var]
    if not file.peek(1):
        raise EOFError("the archive is empty")
    if compression == "gzip":
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if compression in _STREAMS:
        return io.BufferedReader(_Archive(file, _STREAMS[compression]), _BUFFER)
    # Among readers of Zstandard only Arrow's notices a truncated file.
    stream = import_extra("pyarrow", "data").CompressedInputStream(file, "zstd")
    return io.BufferedReader(stream, _BUFFER)


class _Archive(io.RawIOBase):
    """The content of an archive of one or more streams, with zeros between them or not.

    `LZMAFile` and `BZ2File` take a damaged stream behind the first one for the end of the file.

    Args:
        file: The archive, at its start.
        make: Makes the decompressor of a stream.
    """

    def __init__(
        self, file: BinaryIO, make: Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]
    ) -> None:
        super().__init__()
        self._file = file
        self._make = make
        self._stream = make()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read decompressed bytes; none at the end.

        Raises:
            EOFError: the archive was cut.
            OSError: it is damaged.
            LZMAError: it is damaged.
        """
        data = b""
        while not data:
            if self._stream.eof:
                piece = self._stream.unused_data.lstrip(b"\0")
                while not piece:
                    if not (read := self._file.read(_PIECE)):
                        return 0
                    piece = read.lstrip(b"\0")
                self._stream = self._make()
            else:
                piece = self._file.read(_PIECE) if self._stream.needs_input else b""
                if self._stream.needs_input and not piece:
                    raise EOFError("the archive was cut")
            data = self._stream.decompress(piece, len(buffer))
        buffer[: len(data)] = data
        return len(data)


def is_repeatable(path: Path) -> bool:
    """Whether a file can be read twice; a pipe cannot.

    Raises:
        OSError: the file does not exist.
    """
    return path != STDIN and stat.S_ISREG(path.stat().st_mode)


def not_a_file(mode: int) -> str | None:
    """Name the kind of an endless file, such as a pipe, by its mode; None for other files."""
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
    """Return the error for a file that breaks before its end.

    `SourceDamaged` if its content is at fault, so that another attempt would not help.
    """
    message = f"{name}, {where}: from here on the file cannot be read: {error}."
    if is_damage(error):
        return SourceDamaged(f"{message} It was cut short or damaged: make it or fetch it again")
    return SourceBroken(f"{message} A disk or a network failed: run the same command again")


def is_damage(error: Exception) -> bool:
    """Whether an error concerns a file's content, and not its transfer."""
    if isinstance(error, OSError):
        # Decompressors raise OSError without a number, an operating system never does.
        return error.errno is None
    return isinstance(error, EOFError | zlib.error | lzma.LZMAError | ValueError)


def require_readable(path: Path) -> None:
    """Check access to a file without opening it: a pipe can be opened only once.

    Raises:
        OSError: the file does not exist, or this user may not read it.
    """
    path.stat()
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
