"""One file per document's vector: safetensors with their metadata, each written atomically."""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from actvec.client.bulk.checksums import damaged
from actvec.client.bulk.sinks.sink import (
    FILE_DTYPE,
    Dtype,
    DuplicateNameError,
    Row,
    Sink,
    to_dtype,
)
from actvec.client.errors import DataLoss
from actvec.client.files import (
    Content,
    check_writable,
    given_path,
    sync_folder,
    write_atomic,
    write_json,
)
from actvec.client.records.differences import differences
from actvec.client.records.stamp import Stamp
from actvec.client.records.vectors import Vector

# Most systems allow 255 bytes in a file's name; ours adds a prefix and a suffix.
_MAX_NAME = 160
_KEPT_OF_LONG_NAME = 80

_UNSAFE = re.compile(rb"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class SavedVector:
    """A vector on disk.

    Attributes:
        vector_path: The safetensors file.
        metadata_path: The JSON file beside it.
        metadata: The content of the JSON file.
    """

    vector_path: Path
    metadata_path: Path
    metadata: dict[str, Any]


def file_name(document_id: str, text_sha256: str) -> str:
    """Encode a document's id for a file's name: different ids, different names.

    Letters, digits, `.`, `_` and `-` stand for themselves, other bytes of the UTF-8 become `%XX`. A
    very long id is cut and its SHA-256 appended after a `~`, which no other name contains. A text
    without an id goes by the first 12 hexadecimal digits of its own SHA-256.
    """
    if not document_id:
        return text_sha256[:12]
    raw = document_id.encode("utf-8", "surrogatepass")
    name = _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], raw).decode("ascii")
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[:_KEPT_OF_LONG_NAME]}~{hashlib.sha256(raw).hexdigest()}"


class FileSink(Sink):
    """`activation_vector_<mode>_<name>.safetensors` and `..._metadata.json` per document.

    Suitable for some thousands of documents: each takes two files. Two documents never share a
    file. The metadata record the run, the document's number and the digest of its text, so that no
    memory is needed to distinguish a second document with the same id from an earlier run's vector.
    The second document gets a file of its own, `..._<name>~<index>`. An earlier run's vector is
    replaced if its text and stamp are the same; otherwise it stays, and the write fails.

    Attributes:
        folder: The folder of the files.
        committed: See `Sink`.
    """

    committed: int = 0

    def __init__(
        self, folder: str | Path, *, dtype: Dtype = FILE_DTYPE, run: str | None = None
    ) -> None:
        """Open the folder; create it if it is missing.

        Args:
            folder: The folder to write to.
            dtype: dtype of the numbers in the files.
            run: Id of an interrupted run to continue. Default: a new run.

        Raises:
            OSError: the folder cannot be created or written to.
        """
        self.folder = given_path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        check_writable(self.folder)
        self._dtype: Dtype = dtype
        self._run = run or secrets.token_hex(16)
        self._written = 0

    def rows(self) -> Iterator[Row]:
        """The vectors of this run in the folder. See `Sink.rows`.

        Reads each vector and checks it against the SHA-256 in its metadata.
        """
        damage: dict[Path, str] = {}
        for metadata in self._saved():
            try:
                row, path = Row.parse(metadata), self.folder / metadata["vector_file"]
                sha256 = Content.of(path).sha256
            except FileNotFoundError:
                damage[path] = "is missing"
            except (ValueError, LookupError, TypeError) as error:
                raise DataLoss(
                    f"the metadata of {metadata.get('vector_file')} in {self.folder} were altered:"
                    f" {error}"
                ) from error
            else:
                if sha256 == metadata.get("vector_file_sha256"):
                    yield row
                else:
                    damage[path] = (
                        f"has {path.stat().st_size:,} bytes and another SHA-256 than its metadata"
                        " say"
                    )
        if damage:
            raise damaged(
                damage,
                "Restore it from a copy; or remove its metadata (_metadata.json) and resume, and"
                " its document is computed again",
            )

    def write(self, vector: Vector) -> None:
        """Write a vector and its metadata, each atomically. See `Sink.write`."""
        self.save(vector)
        self._written += 1

    def commit(self) -> None:
        """See `Sink.commit`."""
        sync_folder(self.folder)
        self.committed = self._written

    def save(self, vector: Vector) -> SavedVector:
        """Write `activation_vector_<mode>_<name>.safetensors` and `..._metadata.json`.

        `<mode>` is `Stamp.label`: `short`, `long`, `custom-1a2b3c4d`, `short-1a2b3c4d`. The
        safetensors file holds one tensor, `vec`, `[L * K * D]`. The metadata come last and hold the
        other file's SHA-256: if they exist and match, the pair is complete.

        If a document repeats the id of an earlier one of this run, its `<name>` ends with `~` and
        its `index`.

        Raises:
            DuplicateNameError: another document of this run has the same id and index, or another
                run wrote the vector of another document, or of another stamp, under this name.
            OutOfRange: a number is not finite in the dtype of the files.
            OSError: the disk is full, or similar.
        """
        stem = self._stem(vector)
        vector_path = self.folder / f"{stem}.safetensors"
        metadata_path = self.folder / f"{stem}_metadata.json"
        self._check_free(vector, vector_path, metadata_path)
        data = save({"vec": to_dtype(vector.values, self._dtype)})
        metadata = describe(vector, self._dtype) | {
            "vector_file": vector_path.name,
            "vector_file_sha256": hashlib.sha256(data).hexdigest(),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "run": self._run,
        }
        write_atomic(vector_path, data)
        write_json(metadata_path, metadata)
        return SavedVector(vector_path, metadata_path, metadata)

    def _saved(self) -> Iterator[dict[str, Any]]:
        """Yield the metadata of each vector of this run, in no order."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith("_metadata.json"):
                    metadata = _read(Path(entry))
                    if metadata is not None and metadata.get("run") == self._run:
                        yield metadata

    def _stem(self, vector: Vector) -> str:
        stem = f"activation_vector_{vector.stamp.label}_{file_name(vector.id, vector.text_sha256)}"
        there = _read(self.folder / f"{stem}_metadata.json")
        if there and there.get("run") == self._run and there.get("index") != vector.index:
            return f"{stem}~{vector.index}"
        return stem

    def _check_free(self, vector: Vector, vector_path: Path, metadata_path: Path) -> None:
        """Check that a vector does not replace that of another document.

        Raises:
            DuplicateNameError: it would.
        """
        there = _read(metadata_path)
        if there is None:
            return
        if there.get("run") == self._run:
            raise DuplicateNameError(
                f"another document of this run has the id {vector.id!a} and the index"
                f" {vector.index}, and is in {vector_path}; give each its own id",
                field="id",
            )
        # Metadata without a vector: a user removed the vector, so the name is free again.
        if not vector_path.exists():
            return
        if there.get("text_sha256") != vector.text_sha256:
            raise DuplicateNameError(
                f"{vector_path} holds the vector of another text, which another run wrote; give"
                " another folder, or remove that file",
                field="id",
                setting="out",
            )
        if reasons := _other_stamp(there, vector.stamp):
            raise DuplicateNameError(
                f"{vector_path} holds another vector of the same text, and is not replaced:"
                f" {reasons}; give another folder, or remove that file",
                setting="out",
            )


def _other_stamp(metadata: dict[str, Any], stamp: Stamp) -> str:
    """Describe how the stamp in metadata differs; empty if it does not."""
    there = metadata.get("stamp")
    if not isinstance(there, dict):
        return "its metadata have no stamp"
    return differences(Stamp.complete(there), stamp.to_dict())


def _read(metadata_path: Path) -> dict[str, Any] | None:
    """Read metadata; None if the file is missing or damaged."""
    try:
        metadata = json.loads(metadata_path.read_bytes())
    except (OSError, ValueError):
        return None
    return metadata if isinstance(metadata, dict) else None


def describe(vector: Vector, dtype: Dtype = FILE_DTYPE) -> dict[str, Any]:
    """The metadata of a vector as JSON values."""
    return Row.of(vector).to_dict() | {
        "mode": vector.stamp.mode,
        "pools": [asdict(pool) for pool in vector.stamp.pools],
        "dimensions": len(vector.values),
        "shape": list(vector.array.shape),
        "dtype": dtype,
        "norm": vector.norm,
        "centered": vector.stamp.centered,
        "stamp": vector.stamp.to_dict(),
    }
