"""Reads documents from files, lazily; what cannot be read is a `Failure`, never an exception.

Two kinds of input: a folder of `.txt` files, and JSON lines (`.jsonl`, `.jsonl.gz`) with a `text`
and, where given, an `id`. Text is UTF-8.
"""

import errno
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from actvec.client.errors import UnsupportedInput
from actvec.client.vectors import Document, Failure

_SUPPORTED = "a folder of .txt files, a .jsonl file or a .jsonl.gz file"


@dataclass(frozen=True)
class DocumentSource:
    """Documents on disk.

    Attributes:
        path: Where they are.
        count: How many there are, where that is known without reading them.
    """

    path: Path
    count: int | None
    _read: Callable[[], Iterator[Document | Failure]]

    def __iter__(self) -> Iterator[Document | Failure]:
        return self._read()


def open_documents(path: str | Path) -> DocumentSource:
    """The documents of a folder of `.txt` or of a `.jsonl` or `.jsonl.gz` file.

    A text file's id is its name without `.txt`; files come in the order of their names. The id of
    a line is its `id`, a string or an integer, or the line's number from 1; blank lines are
    skipped. Each iteration reads anew.

    Raises:
        UnsupportedInput: there is nothing at `path`, or nothing that can be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _open_folder(path)
        # Not opened to find out: a pipe can be opened once only.
        path.stat()
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UnsupportedInput(f"cannot read {path}: {error.strerror}") from error
    name = path.name.lower()
    if name.endswith(".jsonl"):
        return DocumentSource(path, None, lambda: _read_lines(path, _open_plain))
    if name.endswith(".jsonl.gz"):
        return DocumentSource(path, None, lambda: _read_lines(path, _open_gzip))
    if name.endswith(".parquet"):
        raise UnsupportedInput(f"{path}: Parquet is not supported yet; give {_SUPPORTED}")
    if name.endswith(".txt"):
        raise UnsupportedInput(
            f"{path} is a single text, take `actvec extract --file` for that; or give {_SUPPORTED}"
        )
    raise UnsupportedInput(f"{path} is of no supported kind; give {_SUPPORTED}")


def read_text(path: Path) -> str:
    """A file's text, exactly, save for a byte order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8; the message says where.
    """
    return _decode(path.read_bytes())


def _open_folder(folder: Path) -> DocumentSource:
    # Names only: sorting needs all of them, and they are small beside the texts.
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() == ".txt")
    if not names:
        raise UnsupportedInput(f"{folder} holds no .txt file; give {_SUPPORTED}")
    return DocumentSource(folder, len(names), lambda: _read_folder(folder, names))


def _read_folder(folder: Path, names: list[str]) -> Iterator[Document | Failure]:
    for name in names:
        path = folder / name
        try:
            yield Document(path.stem, read_text(path))
        except OSError as error:
            yield Failure(path.stem, "UNAVAILABLE", f"cannot read {path}: {error.strerror}", "text")
        except ValueError as error:
            yield Failure(path.stem, "INVALID_ARGUMENT", f"{path}: {error}", "text")


def _open_plain(path: Path) -> BinaryIO:
    return path.open("rb")


def _open_gzip(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "rb"))


def _read_lines(path: Path, opener: Callable[[Path], BinaryIO]) -> Iterator[Document | Failure]:
    number = 0
    try:
        with opener(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _parse_line(line, number, path)
    except (OSError, EOFError, zlib.error) as error:
        yield Failure(
            str(number + 1),
            "DATA_LOSS",
            f"{path}, line {number + 1}: from here on the file cannot be read: {error}",
        )


def _parse_line(line: bytes, number: int, path: Path) -> Document | Failure:
    document_id, field = str(number), ""
    try:
        record = json.loads(_decode(line))
        if not isinstance(record, dict):
            raise ValueError(f"a JSON object is wanted, not {_json_type(record)}")
        field = "id"
        document_id = _parse_id(record.get("id"), default=document_id)
        field = "text"
        if "text" not in record:
            raise ValueError("the object has no `text`")
        if not isinstance(record["text"], str):
            raise ValueError(f"`text` is a string, not {_json_type(record['text'])}")
        return Document(document_id, record["text"])
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} at character {error.pos + 1}"
    except RecursionError:
        reason = "not a document: JSON nested too deeply"
    except ValueError as error:
        reason = str(error)
    return Failure(document_id, "INVALID_ARGUMENT", f"{path}, line {number}: {reason}", field)


def _parse_id(value: object, *, default: str) -> str:
    if value is None:
        return default
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"`id` is a string or an integer, not {_json_type(value)}")


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from None


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
