"""Whether the files of a folder are all there, each once."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from actvec.client.errors import DataLoss
from actvec.client.stored.parts import Part, damage

# Of Ray's files, with six digits, those of an unfinished job are missing.
_NUMBERED = re.compile(r"(vectors|part)-([0-9]{5})\.(jsonl|parquet)")


def check_numbers(folder: Path, names: Iterable[str]) -> None:
    """Check that no file is missing between those that are numbered from 0.

    Raises:
        DataLoss: one is missing.
    """
    found = list(filter(None, map(_NUMBERED.fullmatch, sorted(names))))
    for number, one in enumerate(found):
        if int(one[2]) != number:
            path = folder / f"{one[1]}-{number:05d}.{one[3]}"
            raise DataLoss(f"{path} is missing. Restore it from a copy, or name the files to read")


def recorded(place: Path) -> int | None:
    """How many vectors the job of a folder has recorded; None for a file, or without a job.

    Raises:
        DataLoss: the job's record is damaged.
    """
    record = _record_of(place)
    if not place.is_dir() or not record.exists():
        return None
    with damage(record):
        return int(dict(json.loads(record.read_bytes())).get("vectors", 0))


def check_complete(folder: Path, parts: Sequence[Part], written: int | None) -> None:
    """Check that the files of a job's folder have every vector that it recorded, once.

    Nobody records how many vectors a sink without a job has written.

    Args:
        folder: The folder.
        parts: What its files hold.
        written: What `recorded` told before they were read: a job that runs writes more.

    Raises:
        DataLoss: some are missing, or there twice.
    """
    if written is None:
        return
    # Each text that `actvec extract` adds to the folder is the first document of its own run.
    rows = [
        (one.get("index"), one["id"], one.get("text_sha256"))
        for part in parts
        for one in part.facts
    ]
    if len(rows) < written:
        raise DataLoss(
            f"{folder} holds {len(rows):,} vectors, and {_record_of(folder)} names {written:,}:"
            " files were cut or are missing. Restore them from a copy, or resume the job"
        )
    for (index, document_id, _), count in Counter(rows).most_common(1):
        if count > 1:
            raise DataLoss(
                f"document {index} ({document_id!a}) is in {folder} twice: it was altered. Remove"
                " the copies of its files"
            )


def _record_of(folder: Path) -> Path:
    """The record of the job that wrote a folder's vectors, whose tables have a folder of theirs."""
    own = (folder.parent if folder.name == "vectors.parquet" else folder) / "manifest.json"
    rays = folder.with_name("job.json")
    return rays if folder.name == "vectors" and not own.exists() else own
