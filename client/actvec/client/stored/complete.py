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


def check_complete(folder: Path, parts: Sequence[Part]) -> None:
    """Check that the files of a job's folder have every vector that it recorded, once.

    Nobody records how many vectors a sink without a job has written.

    Raises:
        DataLoss: some are missing, or there twice; or the job's record is damaged.
    """
    record = _record_of(folder)
    if not record.exists():
        return
    rows = [(one.get("index"), one["id"]) for part in parts for one in part.facts]
    with damage(record):
        written = int(dict(json.loads(record.read_bytes())).get("vectors", 0))
    if len(rows) < written:
        raise DataLoss(
            f"{folder} holds {len(rows):,} vectors, and {record} names {written:,}: files were cut"
            " or are missing. Restore them from a copy, or resume the job"
        )
    for (index, document_id), count in Counter(rows).most_common(1):
        if count > 1:
            raise DataLoss(
                f"document {index} ({document_id!a}) is in {folder} twice: it was altered. Remove"
                " the copies of its files"
            )


def _record_of(folder: Path) -> Path:
    """The record of the job that wrote a folder's vectors, whose tables have a folder of theirs."""
    if folder.name == "vectors" and (job := folder.with_name("job.json")).exists():
        return job
    return (folder.parent if folder.name == "vectors.parquet" else folder) / "manifest.json"
