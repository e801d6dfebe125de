"""Whether a folder of vectors is what it says: files unaltered, and vectors made again the same."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actvec.client.api.client import Client
from actvec.client.bulk.checksums import altered_files
from actvec.client.files import Content
from actvec.client.findings.remaking import settings_of
from actvec.client.findings.stamps import stamp_differences
from actvec.client.records.differences import differences
from actvec.client.records.model import ModelInfo
from actvec.client.records.stamp import Stamp
from actvec.client.records.vectors import Document, Failure
from actvec.client.stored.vectors import StoredVectors

# Of the norm of a vector: what rounding to the dtype of the file costs, and what other processors
# do to the last bits of the model.
_ROUNDING = {"float16": 1e-3, "float32": 0.0}
_MACHINES = {"float32": 1e-4}
_MACHINES_16_BIT = 2e-2


@dataclass(frozen=True)
class CheckedRow:
    """A document whose vector was made again.

    Attributes:
        id: The document's id.
        error: The largest error of a layer and pool, as a fraction of its norm; None if the vector
            could not be made again.
        worst: The layer and pool of that error; empty for none.
        reason: Why it could not be made again; empty if it was.
        agrees: Whether the vector is that of the folder.
    """

    id: str
    error: float | None
    worst: str
    reason: str
    agrees: bool


@dataclass(frozen=True)
class FolderCheck:
    """What a check found.

    Attributes:
        altered: What is wrong with each file that is not as it was written.
        stamp: How the folder's stamp (there) differs from the server (here); empty if it does not.
        rows: The documents whose vectors were made again; none if the stamps differ.
        tolerance: The largest error of a row that agrees.
    """

    altered: dict[Path, str]
    stamp: str
    rows: tuple[CheckedRow, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.altered and not self.stamp and all(row.agrees for row in self.rows)


def check(
    vectors: StoredVectors,
    documents: Iterable[Document | Failure],
    client: Client,
    *,
    count: int = 8,
    seed: int = 0,
    tolerance: float | None = None,
) -> FolderCheck:
    """Compare a folder with its checksums, and some of its vectors with a server's.

    Examples:
        >>> with Client("127.0.0.1:50051") as client:
        ...     found = check(load("vectors"), open_documents("corpus.jsonl"), client)
        >>> found.passed, [row.id for row in found.rows if not row.agrees]

    Args:
        vectors: From `load`.
        documents: The corpus that they were made of; documents are found by their digests.
        client: Of any server.
        count: How many vectors to make again, drawn at random.
        seed: Of the drawing.
        tolerance: The largest error, as a fraction of the norm. Default: 1e-4 for a model in
            float32 and 0.02 for one in 16 bits, and 0.001 more for files in float16.

    Raises:
        DataLoss: a file cannot be read.
        ActvecError: no server answers, or it refused.
    """
    if tolerance is None:
        rounding = _ROUNDING[str(vectors.parts[0].dtype)]
        tolerance = rounding + _MACHINES.get(vectors.stamp.dtype, _MACHINES_16_BIT)
    altered = {} if vectors.path is None else _altered(vectors.path)
    stamp = _differs(vectors.stamp, client.info())
    if stamp:
        return FolderCheck(altered, stamp, (), tolerance)
    draw = np.random.default_rng(seed)
    chosen = sorted(draw.choice(len(vectors), min(count, len(vectors)), replace=False).tolist())
    # Not `column`: the corpus may have a column of that name.
    digests = vectors.facts["text_sha256"]
    found = _find(documents, {str(digests[row]) for row in chosen})
    known = [row for row in chosen if digests[row] in found]
    made = dict(
        zip(
            known,
            client.stream(
                [found[digests[row]] for row in known], settings_of(vectors.stamp), ordered=True
            ),
            strict=True,
        )
    )
    stored = _rows(vectors, chosen)
    rows = []
    for row in chosen:
        name, result = vectors.ids[row], made.get(row)
        if result is None:
            reason = "its text is not in the corpus any more"
            rows.append(CheckedRow(name, None, "", reason, agrees=False))
        elif isinstance(result, Failure):
            rows.append(CheckedRow(name, None, "", result.message, agrees=False))
        else:
            stamp = stamp or stamp_differences(vectors.stamp, result.stamp)
            error, worst = _error(vectors, stored[row], result.array)
            rows.append(CheckedRow(name, error, worst, "", agrees=error <= tolerance))
    return FolderCheck(altered, stamp, tuple(rows), tolerance)


def _differs(stamp: Stamp, info: ModelInfo) -> str:
    """How a server's model differs from that of a stamp."""
    fields = ("model", "revision", "tokenizer_sha256", "dtype")
    there = {name: getattr(stamp, name) for name in fields}
    here = {name: getattr(info, name) for name in fields}
    if missing := set(stamp.layers) - set(info.layers_on_offer):
        there["layers"], here["layers"] = sorted(missing), "not on offer"
    if stamp.hook not in info.hooks:
        there["hook"], here["hook"] = stamp.hook, "not on offer"
    return differences(there, here)


def _find(documents: Iterable[Document | Failure], digests: set[str]) -> dict[str, Document]:
    """Documents by their digests; reads no further than it has to."""
    found: dict[str, Document] = {}
    for document in documents:
        if len(found) == len(digests):
            break
        if isinstance(document, Document):
            digest = document.digest().hex()
            if digest in digests:
                found[digest] = document
    return found


def _rows(vectors: StoredVectors, chosen: list[int]) -> dict[int, NDArray[np.float32]]:
    """The vectors `[L, K, D]` of some rows."""
    found: dict[int, NDArray[np.float32]] = {}
    first = 0
    for part in vectors.parts:
        here = [row for row in chosen if first <= row < first + len(part)]
        found |= {row: part[row - first].astype(np.float32) for row in here}
        first += len(part)
    return found


def _error(
    vectors: StoredVectors, stored: NDArray[np.float32], made: NDArray[np.float32]
) -> tuple[float, str]:
    errors = np.linalg.norm(stored.astype(np.float64) - made, axis=-1)
    norms = np.linalg.norm(made.astype(np.float64), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(errors == 0, 0, errors / norms)
    layer, pool = np.unravel_index(int(relative.argmax()), relative.shape)
    return float(relative.max()), f"layer {vectors.layers[layer]} {vectors.pools[pool]}"


def _altered(path: Path) -> dict[Path, str]:
    """Files that are not as they were written, as far as their checksums are there."""
    folder = path if path.is_dir() else path.parent
    # A job's Parquet files lie in a folder of their own, below its checksums.
    home = folder.parent if folder.name == "vectors.parquet" else folder
    altered = altered_files(home / "checksums.jsonl")
    for metadata_path in folder.glob("activation_vector_*_metadata.json"):
        metadata = json.loads(metadata_path.read_bytes())
        file = folder / metadata["vector_file"]
        if not file.exists():
            altered[file] = "is missing"
        elif Content.of(file).sha256 != metadata["vector_file_sha256"]:
            altered[file] = "was altered: its SHA-256 is another"
    return altered
