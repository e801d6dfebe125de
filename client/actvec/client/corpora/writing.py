"""Writes a corpus atomically, as JSON lines, plain or compressed, or as Parquet."""

import gzip
import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from actvec.client.errors import UnsupportedInput
from actvec.client.extras import import_extra
from actvec.client.files import atomic_file
from actvec.client.records.vectors import Document

# Rows per row group: the documents held in memory.
_ROW_GROUP = 1000

_Writer = Callable[[BinaryIO, Iterable[Document]], None]


def write_corpus(path: Path, documents: Iterable[Document]) -> None:
    """Write documents with `id` and `text`; the same documents give the same bytes.

    Raises:
        UnsupportedInput: the suffix is none of `.jsonl`, `.jsonl.gz`, `.parquet`.
        MissingExtra: pyarrow is not installed.
        OSError: it cannot be written.
    """
    write = writer_for(path)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        write(file, documents)


def writer_for(path: Path) -> _Writer:
    """Return the writer for a file's name; call it before there is something to write.

    Raises:
        UnsupportedInput: the suffix is none of `.jsonl`, `.jsonl.gz`, `.parquet`.
        MissingExtra: pyarrow is not installed.
    """
    name = path.name.lower()
    if name.endswith(".jsonl"):
        return _write_lines
    if name.endswith(".jsonl.gz"):
        return _write_compressed_lines
    if name.endswith(".parquet"):
        import_extra("pyarrow.parquet", "data")
        return _write_parquet
    raise UnsupportedInput(f"{path}: a corpus is written to a .jsonl, .jsonl.gz or .parquet file")


def encode_line(document: Document) -> bytes:
    """Encode a document as a line of JSON, with its line end."""
    record = {"id": document.id, "text": document.content}
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()


def _write_lines(file: BinaryIO, documents: Iterable[Document]) -> None:
    file.writelines(map(encode_line, documents))


def _write_compressed_lines(file: BinaryIO, documents: Iterable[Document]) -> None:
    # Without a name and a time, so that the same documents give the same bytes.
    with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed:
        compressed.writelines(map(encode_line, documents))


def _write_parquet(file: BinaryIO, documents: Iterable[Document]) -> None:
    pa, pq = import_extra("pyarrow", "data"), import_extra("pyarrow.parquet", "data")
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    rows = ({"id": document.id, "text": document.content} for document in documents)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(rows, _ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))
