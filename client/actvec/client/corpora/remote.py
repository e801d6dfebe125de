"""Remote files, read as if they were local: a broken transfer resumes.

Only errors that may pass are retried: a failed or broken connection, a busy server.
"""

import errno
import io
import os
import time
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from actvec.client.extras import import_extra

Returned = TypeVar("Returned")

# Seconds before each further attempt; any byte that arrives resets them.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_BUFFER = 1 << 20
_HTTP_LIBRARIES = {"aiohttp", "httpcore", "httpcore2", "httpx", "httpx2"}


def is_url(name: str) -> bool:
    """Whether a name is a URL of any kind: https, hf, s3."""
    return "://" in name


def open_url(url: str) -> BinaryIO:
    """Open the file behind a URL, at its start; no request is made before the first read.

    Raises:
        MissingExtra: fsspec is not installed.
    """
    import_extra("fsspec.core", "data")
    return io.BufferedReader(_RemoteFile(url), _BUFFER)


def retried(call: Callable[[], Returned], *, again: int | None = None) -> Returned:
    """Call a function, and repeat it if it fails for a reason that may pass.

    Args:
        call: Makes a request.
        again: Maximum number of repetitions; None to repeat for half a minute.

    Raises:
        Exception: the call's last error.
    """
    for pause in _PAUSES[:again]:
        try:
            return call()
        except Exception as error:  # each library has its own errors
            if not _may_pass(error):
                raise
        time.sleep(pause)
    return call()


def one_line(error: BaseException) -> str:
    """An error in one line: some are long, and some have only a name."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class _RemoteFile(io.RawIOBase):
    """A file that fsspec opens, and reopens at the same position if a read breaks."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._position = 0
        self._file: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            size = self._attempt(lambda file: file.size)
            if size is None:
                raise io.UnsupportedOperation(f"{self._url}: the server does not tell its size")
            offset += size
        self._position = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        data = self._attempt(lambda file: self._read(file, len(buffer)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
        super().close()

    def _read(self, file: Any, most: int) -> bytes:
        if file.tell() != self._position:
            try:
                file.seek(self._position)
            except ValueError:  # the server sends files from their start only
                while file.tell() < self._position:
                    if not file.read(min(_BUFFER, self._position - file.tell())):
                        raise EOFError("the file has become shorter") from None
        data: bytes = file.read(most)
        return data

    def _attempt(self, act: Callable[[Any], Returned]) -> Returned:
        """Act on the open file; reopen it after each failure."""

        def once() -> Returned:
            try:
                if self._file is None:
                    system, path = import_extra("fsspec.core", "data").url_to_fs(self._url)
                    self._file = system.open(path, "rb")
                return act(self._file)
            except Exception:
                self._file = None
                raise

        try:
            return retried(once)
        except Exception as error:
            # With a number, as from an operating system: the content is not at fault.
            raise OSError(errno.EIO, one_line(error)) from error


def _may_pass(error: Exception) -> bool:
    response = getattr(error, "response", None)
    status = getattr(error, "status", None) or getattr(response, "status_code", None)
    if isinstance(status, int) and status:
        return status in {408, 425, 429} or status >= 500
    # An invalid certificate is a ValueError too.
    if isinstance(error, FileNotFoundError | PermissionError | ValueError):
        return False
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or library in _HTTP_LIBRARIES
