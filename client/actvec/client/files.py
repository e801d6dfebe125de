"""Writes vectors as safetensors with their metadata, each file whole or not at all."""

import contextlib
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

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from actvec.client.errors import FailedPrecondition, OutOfRange
from actvec.client.vectors import Vector

FILE_DTYPE = "float16"

# A name of a file has 255 bytes on most systems; ours has a prefix and a suffix too.
_MAX_NAME = 160
_KEPT_OF_LONG_NAME = 80

_UNSAFE = re.compile(rb"[^A-Za-z0-9._-]")


class DuplicateNameError(FailedPrecondition):
    """Another document of this run has the same id, and so the same file."""


@dataclass(frozen=True)
class SavedVector:
    """A vector on disk.

    Attributes:
        vector_path: The safetensors file.
        metadata_path: The JSON file beside it.
        metadata: What the JSON file holds.
    """

    vector_path: Path
    metadata_path: Path
    metadata: dict[str, Any]


def file_name(document_id: str, text_sha256: str) -> str:
    """The part of a file's name that stands for a document: different ids, different names.

    Letters, digits, `.`, `_` and `-` stand for themselves, other bytes of the UTF-8 as `%XX`. A
    very long id is cut and its SHA-256 appended after a `~`, which no other name holds. A text
    without an id goes by the first 12 hexadecimal digits of its own SHA-256.
    """
    if not document_id:
        return text_sha256[:12]
    raw = document_id.encode("utf-8", "surrogatepass")
    name = _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], raw).decode("ascii")
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[:_KEPT_OF_LONG_NAME]}~{hashlib.sha256(raw).hexdigest()}"


class VectorFolder:
    """A folder that one run writes vectors to.

    Two documents of a run never share a file: the metadata names the run that wrote it, so that
    nothing has to be kept in memory to tell a second document of the same id from an earlier run's
    file, which is replaced.
    """

    def __init__(self, path: str | Path) -> None:
        """Create the folder where it is missing.

        Raises:
            OSError: it cannot be created or written to.
        """
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._run = secrets.token_hex(16)
        # Found out now, not after an hour of computing.
        with _temporary(self.path):
            pass

    def save(self, vector: Vector) -> SavedVector:
        """Write `activation_vector_<mode>_<name>.safetensors` and `..._metadata.json`.

        The safetensors file holds one tensor, `vec`, `[K * D]` float16. The metadata comes last and
        holds the other file's SHA-256: where it is there and agrees, the pair is complete.

        Raises:
            DuplicateNameError: another document of this run has the same id.
            OutOfRange: a number is not finite in float16.
            OSError: the disk is full, or the like.
        """
        stem = f"activation_vector_{vector.stamp.mode}_{file_name(vector.id, vector.text_sha256)}"
        vector_path = self.path / f"{stem}.safetensors"
        metadata_path = self.path / f"{stem}_metadata.json"
        if self._is_of_this_run(metadata_path):
            raise DuplicateNameError(
                f"another document of this run has the id {vector.id!a} and is in {vector_path};"
                " give each its own id",
                field="id",
            )
        data = save({"vec": to_float16(vector.values)})
        metadata = describe(vector) | {
            "vector_file": vector_path.name,
            "vector_file_sha256": hashlib.sha256(data).hexdigest(),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "run": self._run,
        }
        write_whole(vector_path, data)
        write_whole(metadata_path, (json.dumps(metadata, indent=2) + "\n").encode())
        return SavedVector(vector_path, metadata_path, metadata)

    def _is_of_this_run(self, metadata_path: Path) -> bool:
        try:
            metadata = json.loads(metadata_path.read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(metadata, dict) and metadata.get("run") == self._run


def describe(vector: Vector) -> dict[str, Any]:
    """The metadata of a vector as JSON takes it, all of it from the vector and its stamp."""
    return {
        "id": vector.id,
        "text_sha256": vector.text_sha256,
        "tokens": vector.tokens,
        "tokens_used": vector.tokens_used,
        "truncated": vector.truncated,
        "mode": vector.stamp.mode,
        "pools": [asdict(pool) for pool in vector.stamp.pools],
        "dimensions": len(vector.values),
        "dtype": FILE_DTYPE,
        "norm": vector.norm,
        "centered": vector.stamp.centered,
        "smallest_count": vector.smallest_count,
        "stamp": vector.stamp.to_dict(),
    }


def to_float16(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """The numbers `[K * D]` in float16.

    Raises:
        OutOfRange: one of them is not finite, or beyond 65504.
    """
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        worst = float(values[~np.isfinite(halves)][0])
        raise OutOfRange(
            f"the vector holds {worst:g}, and {FILE_DTYPE} files hold numbers up to 65504; take"
            " the float32 numbers from the library, or centre"
        )
    return halves


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there with all of `data`, or as it was before.

    Raises:
        OSError: it cannot be written.
    """
    with _temporary(path.parent) as (descriptor, temporary):
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[int, Path]]:
    """A new file in a folder, gone afterwards unless it was renamed."""
    path = folder / f".actvec-{secrets.token_hex(8)}.tmp"
    # The process's umask applies, as it would not with a private temporary file.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        yield descriptor, path
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)
