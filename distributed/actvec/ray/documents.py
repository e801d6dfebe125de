"""Copies documents to files that all workers of a cluster can read."""

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from actvec.client.bulk.sinks.kept_columns import ColumnTypes
from actvec.client.documents import DocumentSource
from actvec.client.errors import DataLoss, FailedPrecondition, InvalidArgument
from actvec.client.extras import import_extra
from actvec.client.files import write_json
from actvec.client.messages.documents import check_utf8
from actvec.client.records.vectors import Document, Failure
from actvec.client.stored.parts import damage

# The columns of a file that are copies of the source.
CONTENT = ("text", "messages", "token_ids", "spans")
# Those that make a row a document, as `ActivationVectors` takes them.
SOURCE_COLUMNS = {f"{name}_column": name for name in ("id", *CONTENT)}
# The list of documents that cannot be read, in a job's folder.
UNREADABLE = "unreadable.jsonl"

# The record of a job, in its folder.
JOB = "job.json"
# Of that folder. Jobs of earlier versions name none: they had other files.
_LAYOUT = 2

# Rows per file, which a worker computes at a time: a kill costs as many for each worker.
_ROWS = 256


def begin_job(source: DocumentSource, out: Path, options: Mapping[str, Any]) -> None:
    """Check that a folder is new, or holds this job.

    Args:
        source: The documents.
        out: The job's folder.
        options: Everything else that the results depend on.

    Raises:
        FailedPrecondition: it holds another one.
        DataLoss: the job's record is damaged.
    """
    job = {
        "layout": _LAYOUT,
        "input": source.identity(),
        "options": json.loads(json.dumps(dict(options), default=str)),
    }
    path = out / JOB
    if not path.exists():
        write_json(path, job)
        return
    there = _recorded(path)
    if there.get("layout") != _LAYOUT:
        raise FailedPrecondition(
            f"{out} holds a job of another version of actvec, whose files are laid out in another"
            " way. Continue it with that version; or remove the folder, or give another one"
        )
    if job["input"] is None or there | job != there:
        raise FailedPrecondition(
            f"{out} holds a job of other settings or another input; see {path}. Continue it with"
            " the same settings and input, or give another folder"
        )


def record_files(out: Path, names: Collection[str]) -> None:
    """Record which files of documents a new job has; check that an older one has them still.

    Raises:
        DataLoss: some are missing, or there are others.
    """
    path = out / JOB
    job = _recorded(path)
    if "files" not in job:
        write_json(path, job | {"files": len(names)})
    elif wrong := {_name(number) for number in range(job["files"])} ^ set(names):
        state = "does not belong there" if min(wrong) in names else "is missing"
        raise DataLoss(
            f"{out}/documents/{min(wrong)} {state}: the folder was altered. Restore it from a copy,"
            " or begin again in another one"
        )


def record_vectors(out: Path, count: int) -> None:
    """Record how many vectors a finished job has, for `load`."""
    path = out / JOB
    write_json(path, _recorded(path) | {"vectors": count})


def _recorded(path: Path) -> dict[str, Any]:
    with damage(path):
        return dict(json.loads(path.read_bytes()))


def keep_documents(source: DocumentSource, out: Path) -> Path:
    """Write documents as Parquet files.

    Existing files stay. Documents that cannot be read, or written in UTF-8, go to a separate list;
    see `unreadable`.

    Args:
        source: The documents; rows have their `index`, the number in the source, `id`, `text`,
            `messages`, `token_ids` and `spans`, as far as they have them, and their columns. A
            source with columns is read twice: all files have the same types.
        out: The job's folder.

    Returns:
        The folder of the files.

    Raises:
        SourceBroken: the source cannot be read to its end; nothing is kept then.
        OSError: the disk is full, or similar.
    """
    folder, partial = out / "documents", out / ".documents-partial"
    if folder.exists():
        return folder
    pa, pq = import_extra("pyarrow", "ray"), import_extra("pyarrow.parquet", "ray")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    span = pa.struct([("name", pa.string()), ("start", pa.int64()), ("end", pa.int64())])
    schema = pa.schema(
        [
            ("index", pa.int64()),
            ("id", pa.string()),
            ("text", pa.string()),
            ("messages", pa.list_(message)),
            ("token_ids", pa.list_(pa.int64())),
            ("spans", pa.list_(span)),
        ]
    )
    kept = ColumnTypes()
    if source.kept:
        kept.add(document.columns for document in source)
    located = source.scan()
    part = 0
    with (out / UNREADABLE).open("w") as listed:
        while some := list(islice(located, _ROWS)):
            rows, columns = [], []
            for one in some:
                document = _writable(one.document)
                if isinstance(document, Failure):
                    record = replace(document, index=one.index).to_dict()
                    listed.write(json.dumps(record) + "\n")
                else:
                    rows.append({"index": one.index, "id": document.id, **_content(document)})
                    columns.append(document.columns)
            table = pa.Table.from_pylist(rows, schema)
            for name in kept.types:
                values = kept.array(name, [one.get(name) for one in columns])
                table = table.append_column(name, values)
            pq.write_table(table, partial / _name(part))
            part += 1
    partial.rename(folder)
    return folder


def _name(part: int) -> str:
    return f"part-{part:06d}.parquet"


def _writable(document: Document | Failure) -> Document | Failure:
    """A document, or the reason why no file can hold it."""
    if isinstance(document, Document):
        try:
            check_utf8(document)
        except InvalidArgument as error:
            return Failure.of(error, document.id, 0, document.columns)
    return document


def _content(document: Document) -> dict[str, Any]:
    """What a document holds, as values of Arrow."""
    messages = document.messages
    return {
        "text": document.text,
        "messages": None if messages is None else [asdict(one) for one in messages],
        "token_ids": document.token_ids,
        "spans": [asdict(one) for one in document.spans],
    }


def unreadable(out: Path) -> list[Failure]:
    """The documents of the source that could not be read.

    Raises:
        DataLoss: their list is damaged.
    """
    path = out / UNREADABLE
    with damage(path):
        return [Failure(**json.loads(line)) for line in path.read_text().splitlines()]
