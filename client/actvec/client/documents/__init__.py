"""Reads documents from files, lazily.

A document that cannot be read is a `Failure`, and the others follow. A file that cannot be read on
is an exception, `SourceBroken`, after what could be read: its end is not the corpus' end.

Three kinds of input: a folder of `.txt` files, JSON lines (`.jsonl`, `.jsonl.gz`) with a `text`
and, where given, an `id`, and Parquet with columns of these names. Text is UTF-8.
"""

import errno
import os
from pathlib import Path

from actvec.client.documents.folder import FolderSource, read_text
from actvec.client.documents.lines import LinesSource
from actvec.client.documents.parquet import ParquetSource
from actvec.client.documents.shard import Shard, ShardSource
from actvec.client.documents.source import DocumentSource, Located
from actvec.client.errors import UnsupportedInput

__all__ = [
    "DocumentSource",
    "FolderSource",
    "LinesSource",
    "Located",
    "ParquetSource",
    "Shard",
    "ShardSource",
    "open_documents",
    "read_text",
]

_SUPPORTED = "a folder of .txt files, or a .jsonl, .jsonl.gz or .parquet file"


def open_documents(path: str | Path, shard: Shard | None = None) -> DocumentSource:
    """The documents of a folder of `.txt` or of a `.jsonl`, `.jsonl.gz` or `.parquet` file.

    A text file's id is its name without `.txt`; files come in the order of their names. The id of
    a line or row is its `id`, a string or an integer, or the number of the line or row from 1;
    blank lines are skipped.

    Args:
        path: Where they are.
        shard: Which part of them; None for all.

    Raises:
        UnsupportedInput: there is nothing at `path`, or nothing that can be read.
        MissingExtra: Parquet needs pyarrow, which is not installed.
    """
    source = _open(Path(path))
    return source if shard is None else ShardSource(source, shard)


def _open(path: Path) -> DocumentSource:
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
    if name.endswith((".jsonl", ".jsonl.gz")):
        return LinesSource(path, compressed=name.endswith(".gz"))
    if name.endswith(".parquet"):
        return ParquetSource(path)
    if name.endswith(".txt"):
        raise UnsupportedInput(
            f"{path} is a single text, take `actvec extract --file` for that; or give {_SUPPORTED}"
        )
    raise UnsupportedInput(f"{path} is of no supported kind; give {_SUPPORTED}")


def _open_folder(folder: Path) -> DocumentSource:
    # Names only: sorting needs all of them, and they are small beside the texts.
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() == ".txt")
    if not names:
        raise UnsupportedInput(f"{folder} holds no .txt file; give {_SUPPORTED}")
    return FolderSource(folder, names)
