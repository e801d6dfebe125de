"""Reads documents from files, lazily.

A document that cannot be read is a `Failure`, and the others follow. A file that cannot be read to
its end raises `SourceBroken` after its readable part, so that nobody takes the break for the end of
the corpus.

Four kinds of input: a folder of `.txt` files; JSON lines (`.jsonl`, `.ndjson` or `.json`, or
standard input) with a `text` and an optional `id`; and CSV (`.csv`, `.tsv`) or Parquet with such
columns. Lines and CSV may be compressed (`.gz`, `.zst`, `.xz`, `.bz2`). Text is UTF-8. A document
may have `messages` or `conversations` (a chat) or `token_ids` instead of a `text`, and `spans`
beside a text or token ids; not in CSV, whose values are all strings.
"""

import logging
from pathlib import Path

from actvec.client.documents.folder import FolderSource, read_text, texts_in
from actvec.client.documents.lines import LinesSource
from actvec.client.documents.opening import (
    STDIN,
    compression_of,
    is_repeatable,
    require_readable,
)
from actvec.client.documents.parquet import ParquetSource
from actvec.client.documents.shard import Shard, ShardSource
from actvec.client.documents.source import Columns, DocumentSource, Located
from actvec.client.errors import UnsupportedInput
from actvec.client.files import given_path

__all__ = [
    "Columns",
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

_log = logging.getLogger("actvec.client")

# Sub-folders that a message names.
_NAMED = 5

_SUPPORTED = (
    "a folder of .txt files, JSON lines (.jsonl, .ndjson, .json; - for standard input), .csv or"
    " .tsv (each also .gz, .zst, .xz or .bz2), or a .parquet file"
)
# What `datasets` leaves in a folder beside a dataset, or beside one folder for each split.
_SAVED = {"state.json": "", "dataset_dict.json": "['train']"}


def open_documents(
    path: str | Path, shard: Shard | None = None, columns: Columns | None = None
) -> DocumentSource:
    """Open the documents of a folder of `.txt` files, of JSON lines, CSV or a `.parquet` file.

    The id of a text file is its name without `.txt`; files come in the order of their names, and
    hidden ones (`._a.txt`) are no documents. Sub-folders are not read; a warning names those that
    hold `.txt` files. The id of a line or row is its `id`, a string or an
    integer, or the number of the line or row from 1. Blank lines are skipped.

    Args:
        path: The folder or the file: `.jsonl`, `.ndjson`, `.json`, `.csv` or `.tsv`, also with
            `.gz`, `.zst`, `.xz` or `.bz2`, or `.parquet`. A table has its columns' names in its
            first row. `-` is standard input: JSON lines, compressed or not. Standard input and
            named pipes can be read only once.
        shard: A part of the documents; None for all.
        columns: The fields or columns of documents and ids; None for the defaults of `Columns`.

    Raises:
        UnsupportedInput: `path` does not exist or has no supported format, or the first documents
            lack such a field.
        MissingExtra: Parquet and Zstandard need pyarrow, which is not installed.

    Examples:
        >>> for document in open_documents("corpus.jsonl.zst", columns=Columns(text="body")):
        ...     print(document)
    """
    source = _open(given_path(path), columns or Columns())
    source.check()
    return source if shard is None else ShardSource(source, shard)


def _open(path: Path, columns: Columns) -> DocumentSource:
    if path == STDIN:
        return LinesSource(path, columns=columns)
    try:
        if path.is_dir():
            return _open_folder(path, columns)
        require_readable(path)
        repeatable = is_repeatable(path)
    except OSError as error:
        raise UnsupportedInput(f"cannot read {path}: {error.strerror}") from error
    compression = compression_of(path.name)
    if compression is not None:
        return LinesSource(path, compression, columns)
    name = path.name.lower()
    if name.endswith(".parquet"):
        if not repeatable:
            raise UnsupportedInput(f"{path} is not a regular file; Parquet is read from its end")
        return ParquetSource(path, columns)
    if name.endswith(".txt"):
        raise UnsupportedInput(
            f"{path} is a single text; use `actvec extract` for it, or give {_SUPPORTED}"
        )
    if name.endswith(".arrow"):
        raise UnsupportedInput(
            f"{path} is an Arrow file; write it as Parquet:"
            f" datasets.Dataset.from_file({str(path)!r}).to_parquet('corpus.parquet')"
        )
    raise UnsupportedInput(f"{path} has an unsupported suffix; give {_SUPPORTED}")


def _open_folder(folder: Path, columns: Columns) -> DocumentSource:
    if columns != Columns():
        raise UnsupportedInput(f"{folder} is a folder; its text files have no columns to name")
    names, others = texts_in(folder)
    skipped = ", ".join(map(repr, others[:_NAMED]))
    if len(others) > _NAMED:
        skipped += f" and {len(others) - _NAMED:,} more"
    if not names and others:
        raise UnsupportedInput(
            f"{folder} holds .txt files only in sub-folders, which are not read: {skipped}; give"
            " one of them, or JSON lines of all texts"
        )
    for record, split in _SAVED.items():
        if not names and (folder / record).exists():
            raise UnsupportedInput(
                f"{folder} is a dataset saved by datasets; write it as Parquet:"
                f" datasets.load_from_disk({str(folder)!r}){split}.to_parquet('corpus.parquet')"
            )
    if not names:
        raise UnsupportedInput(f"{folder} holds no .txt file; give {_SUPPORTED}")
    if others:
        _log.warning(
            "%s: skipping the texts in its sub-folders (%s); .txt files of the folder itself: %s",
            folder,
            skipped,
            f"{len(names):,}",
        )
    return FolderSource(folder, names)
