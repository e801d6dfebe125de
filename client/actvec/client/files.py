"""Writes vectors as safetensors with their metadata, each file whole or not at all."""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from actvec.client.errors import FailedPrecondition, OutOfRange
from actvec.client.vectors import Vector
from actvec.client.whole import check_writable, write_whole

Dtype = Literal["float16", "float32"]

FILE_DTYPE: Dtype = "float16"

# A name of a file has 255 bytes on most systems; ours has a prefix and a suffix too.
_MAX_NAME = 160
_KEPT_OF_LONG_NAME = 80

_UNSAFE = re.compile(rb"[^A-Za-z0-9._-]")


class DuplicateNameError(FailedPrecondition):
    """Another document has the file already that this one would have: its id is the same."""


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

    Two documents never share a file. The metadata name the run and the text, so that nothing has to
    be kept in memory to tell a second document of the same id from an earlier run's vector: that is
    replaced where it is of the same text, and kept, with an error, where it is of another one.
    """

    def __init__(
        self, path: str | Path, *, dtype: Dtype = FILE_DTYPE, run: str | None = None
    ) -> None:
        """Create the folder where it is missing.

        Args:
            path: The folder.
            dtype: dtype of the numbers in the files.
            run: Names the run, where it goes on with one that was cut short. Default: a new one.

        Raises:
            OSError: it cannot be created or written to.
        """
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._dtype: Dtype = dtype
        self._run = run or secrets.token_hex(16)
        check_writable(self.path)

    def save(self, vector: Vector) -> SavedVector:
        """Write `activation_vector_<mode>_<name>.safetensors` and `..._metadata.json`.

        The safetensors file holds one tensor, `vec`, `[K * D]`. The metadata comes last and holds
        the other file's SHA-256: where it is there and agrees, the pair is complete.

        Raises:
            DuplicateNameError: another document of this run has the same id, or another run has
                written the vector of another text under this name.
            OutOfRange: a number is not finite in the dtype of the files.
            OSError: the disk is full, or the like.
        """
        stem = f"activation_vector_{vector.stamp.mode}_{file_name(vector.id, vector.text_sha256)}"
        vector_path = self.path / f"{stem}.safetensors"
        metadata_path = self.path / f"{stem}_metadata.json"
        self._check_free(vector, vector_path, metadata_path)
        data = save({"vec": to_dtype(vector.values, self._dtype)})
        metadata = describe(vector, self._dtype) | {
            "vector_file": vector_path.name,
            "vector_file_sha256": hashlib.sha256(data).hexdigest(),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "run": self._run,
        }
        write_whole(vector_path, data)
        write_whole(metadata_path, (json.dumps(metadata, indent=2) + "\n").encode())
        return SavedVector(vector_path, metadata_path, metadata)

    def saved(self) -> Iterator[dict[str, Any]]:
        """The metadata of each vector of this run that is there, in no order."""
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.endswith("_metadata.json"):
                    metadata = _read(Path(entry))
                    if metadata is not None and metadata.get("run") == self._run:
                        yield metadata

    def _check_free(self, vector: Vector, vector_path: Path, metadata_path: Path) -> None:
        """See that a vector takes no other document's place.

        Raises:
            DuplicateNameError: it would.
        """
        there = _read(metadata_path)
        if there is None:
            return
        if there.get("run") == self._run:
            raise DuplicateNameError(
                f"another document of this run has the id {vector.id!a} and is in {vector_path};"
                " give each its own id",
                field="id",
            )
        # Metadata alone are nobody's vector: whoever removed that wants the name to be free.
        if there.get("text_sha256") != vector.text_sha256 and vector_path.exists():
            raise DuplicateNameError(
                f"{vector_path} holds the vector of another text, which another run wrote; give"
                " another folder (--out), or remove that file",
                field="id",
            )


def _read(metadata_path: Path) -> dict[str, Any] | None:
    """The metadata in a file; None where there are none, or not whole."""
    try:
        metadata = json.loads(metadata_path.read_bytes())
    except (OSError, ValueError):
        return None
    return metadata if isinstance(metadata, dict) else None


def describe(vector: Vector, dtype: Dtype = FILE_DTYPE) -> dict[str, Any]:
    """The metadata of a vector as JSON takes it, all of it from the vector and its stamp."""
    return {
        "id": vector.id,
        "index": vector.index,
        "text_sha256": vector.text_sha256,
        "tokens": vector.tokens,
        "tokens_used": vector.tokens_used,
        "truncated": vector.truncated,
        "mode": vector.stamp.mode,
        "pools": [asdict(pool) for pool in vector.stamp.pools],
        "dimensions": len(vector.values),
        "dtype": dtype,
        "norm": vector.norm,
        "centered": vector.stamp.centered,
        "smallest_count": vector.smallest_count,
        "stamp": vector.stamp.to_dict(),
    }


def to_dtype(values: NDArray[np.float32], dtype: Dtype) -> NDArray[Any]:
    """The numbers `[K * D]` in the dtype of files.

    Raises:
        OutOfRange: one of them is not finite in it.
    """
    with np.errstate(over="ignore"):
        rounded = values.astype(dtype)
    finite = np.isfinite(rounded)
    if not finite.all():
        worst = float(values[~finite][0])
        raise OutOfRange(
            f"the vector holds {worst:g}, and {dtype} files hold numbers up to"
            f" {np.finfo(dtype).max:.6g}; take the float32 numbers, or centre"
        )
    return rounded
