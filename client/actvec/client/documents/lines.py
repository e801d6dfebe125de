"""JSON lines, plain or compressed, a document a line."""

import gzip
import json
import stat
import zlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from actvec.client.documents.source import (
    DocumentSource,
    Located,
    decode,
    file_identity,
    json_type,
    parse_id,
    source_broken,
)
from actvec.client.vectors import Document, Failure


class LinesSource(DocumentSource):
    """JSON lines, a document a line. See `open_documents`."""

    def __init__(self, path: Path, *, compressed: bool) -> None:
        """`compressed`: whether by gzip."""
        super().__init__(path)
        self._compressed = compressed

    @property
    def count(self) -> None:
        """Not known."""
        return None

    @property
    def size(self) -> int | None:
        """Bytes of the file, compressed where it is."""
        status = self.path.stat()
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def scan(self, skip: Container[int] = frozenset()) -> Iterator[Located]:
        """See `DocumentSource.scan`; what is skipped is not parsed."""
        index = number = 0
        try:
            with self.path.open("rb") as raw:
                lines = gzip.GzipFile(fileobj=raw) if self._compressed else raw
                seekable = raw.seekable()
                for number, line in enumerate(lines, start=1):
                    if not line.strip():
                        continue
                    if index not in skip:
                        end = raw.tell() if seekable else 0
                        yield Located(index, end, _parse_line(line, number, self.path))
                    index += 1
        except (OSError, EOFError, zlib.error) as error:
            raise source_broken(self.path, f"line {number + 1}", error) from error

    def identity(self) -> dict[str, Any] | None:
        """See `DocumentSource.identity`."""
        return file_identity(self.path, "jsonl.gz" if self._compressed else "jsonl")


def _parse_line(line: bytes, number: int, path: Path) -> Document | Failure:
    document_id, field = str(number), ""
    try:
        record = json.loads(decode(line))
        if not isinstance(record, dict):
            raise ValueError(f"a JSON object is wanted, not {json_type(record)}")
        field = "id"
        document_id = parse_id(record.get("id"), default=document_id)
        field = "text"
        if "text" not in record:
            raise ValueError("the object has no `text`")
        if not isinstance(record["text"], str):
            raise ValueError(f"`text` is a string, not {json_type(record['text'])}")
        return Document(document_id, record["text"])
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} at character {error.pos + 1}"
    except RecursionError:
        reason = "not a document: JSON nested too deeply"
    except ValueError as error:
        reason = str(error)
    return Failure(document_id, "INVALID_ARGUMENT", f"{path}, line {number}: {reason}", field)
