"""The vectors and the mean of a corpus, computed by a Ray cluster and resumed after a kill."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actvec.client.bulk.remote import is_remote
from actvec.client.bulk.remote.opening import split_url
from actvec.client.bulk.sinks.kept_columns import check_names
from actvec.client.documents import DocumentSource
from actvec.client.errors import FailedPrecondition, StampChanged
from actvec.client.extras import import_extra
from actvec.client.files import given_path
from actvec.client.records.means import CorpusMean
from actvec.client.records.vectors import Failure
from actvec.ray.documents import CONTENT, SOURCE_COLUMNS, unreadable
from actvec.ray.folders import RESULTS, SUMS, VECTORS, open_job
from actvec.ray.means import merge_parts, parts_of
from actvec.ray.steps import FileSums, FileVectors
from actvec.ray.vectors import ADDED, STAMP

if TYPE_CHECKING:
    import pyarrow as pa

# Column names that documents may not use.
_OURS = ("index", "id", *CONTENT, *ADDED)


@dataclass(frozen=True)
class RayVectors:
    """The state of a folder of vectors.

    Attributes:
        vectors: Documents with a vector.
        failed: Documents without one; `errors.jsonl` lists them.
        computed: Documents of either kind that this run computed.
    """

    vectors: int
    failed: int
    computed: int


def write_vectors(
    source: DocumentSource,
    out: str | Path,
    *,
    workers: int = 1,
    gpus: float = 0,
    **options: Any,
) -> RayVectors:
    """Compute the vectors of a source into Parquet files in `out/vectors`; run it again to resume.

    Each document appears once, whatever was killed: `index` is its number in the source. The
    columns that the source keeps become columns. Failed documents have no vector and an `error`,
    and `out/errors.jsonl` lists them.

    Args:
        source: The documents.
        out: A folder that all workers reach under the same absolute path, or a URL such as
            `s3://bucket/vectors`, with credentials on each worker.
        workers: Number of actors, each with a model.
        gpus: GPUs per actor.
        **options: Options of `ActivationVectors`.

    Raises:
        FailedPrecondition: the folder holds another job, or the cluster has too few CPUs.
        InvalidArgument: a column that the source keeps has the name of a column of ours.
        Aborted: another process runs the job.
        DataLoss: a file of the job is damaged or missing.
        MissingExtra: Ray is not installed.
        StampChanged: workers make different vectors, as with another model in the same place.
        ray.exceptions.RayTaskError: a worker failed; its error is the cause.
        OSError: the folder cannot be written.
    """
    _connect(workers)
    check_names(source.kept, _OURS)
    with open_job(source, out, options) as job:
        left = job.left(VECTORS)
        done = [name for name in job.files if name not in left]
        stamp = next((_stamp(table) for table in job.tables(RESULTS, done[:1])), None)
        asked = {**options, **SOURCE_COLUMNS, "place": job.place, "stamp": stamp}
        _map(FileVectors, [{"files": [name]} for name in left], workers, gpus, asked)
        rows = computed = 0
        failures = unreadable(job.copy)
        before = len(failures)
        for name, table in zip(job.files, job.tables(RESULTS, job.files), strict=True):
            stamp = stamp or _stamp(table)
            if _stamp(table) != stamp:
                raise StampChanged(
                    f"the workers made different vectors in {job.place}: {VECTORS}/{name} has"
                    " another stamp than others. Remove it, and run the same command with workers"
                    " of one kind"
                )
            rows += len(table)
            computed += len(table) if name in left else 0
            failures += _failures(table, source.kept)
        vectors = rows - (len(failures) - before)
        job.finish(vectors, failures)
    return RayVectors(vectors, len(failures), computed)


def write_mean(
    source: DocumentSource,
    out: str | Path,
    *,
    name: str,
    workers: int = 1,
    gpus: float = 0,
    **options: Any,
) -> CorpusMean:
    """Compute the mean of a source into a file, as a server stores it; run it again to resume.

    Each document counts once, whatever was killed. Sums of parts of the source are in a hidden
    folder beside the file until all are there.

    Args:
        source: The documents.
        out: The safetensors file to write, in a folder that all workers reach under the same
            absolute path; or its URL, with credentials on each worker.
        name: The mean's name.
        workers: Number of actors, each with a model.
        gpus: GPUs per actor.
        **options: Options of `PartialMeans`.

    Returns:
        The mean's record.

    Raises:
        FailedPrecondition: another job for this file was begun, or the cluster has too few CPUs.
        InvalidArgument: the URL names no file.
        Aborted: another process runs the job.
        RequestError: the name is invalid, or no document is usable.
        DataLoss: a file of the job is damaged or missing.
        MissingExtra: Ray is not installed.
        ray.exceptions.RayTaskError: a worker failed; its error is the cause.
        OSError: a file cannot be written.
    """
    _connect(workers)
    out = str(out) if is_remote(out) else str(given_path(out).absolute())
    folder, file = split_url(out, "out")
    options = {"name": name, **options}
    with open_job(source, f"{folder}/.{file}.parts", options) as job:
        parts = parts_of(job.files)
        missing = job.left(SUMS)
        left = [{"files": files} for files in parts if files[0] in missing]
        _map(FileSums, left, workers, gpus, {**options, **SOURCE_COLUMNS, "place": job.place})
        tables = job.tables(SUMS, [files[0] for files in parts])
        sums = (row for table in tables for row in table.to_pylist())
        made = merge_parts(sums, out, name, unreadable(job.copy))
        job.remove()
    return made


def _connect(workers: int) -> None:
    """Connect to a cluster, or start one here.

    Raises:
        FailedPrecondition: the job would wait for CPUs forever.
        MissingExtra: Ray is not installed.
    """
    ray = import_extra("ray", "ray")
    import_extra("ray.data", "ray")
    if not ray.is_initialized():
        ray.init()
    there = int(ray.cluster_resources().get("CPU", 0))
    if there < workers:
        raise FailedPrecondition(
            f"{workers} workers need {workers} CPUs, and the cluster declares {there}: the job"
            " would wait forever. Take fewer workers, or declare more CPUs: ray start --num-cpus,"
            " or ray.init(num_cpus=...)"
        )


def _map(
    step: type, rows: Sequence[dict[str, Any]], workers: int, gpus: float, asked: dict[str, Any]
) -> None:
    """Let workers do a step for each row."""
    data = import_extra("ray.data", "ray")
    if rows:
        data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            step,
            fn_constructor_kwargs=asked,
            compute=data.ActorPoolStrategy(size=min(workers, len(rows))),
            num_gpus=gpus or None,
            batch_format="pyarrow",
            batch_size=1,
        ).materialize()


def _stamp(table: "pa.Table") -> dict[str, Any]:
    stamp: dict[str, Any] = json.loads(table.schema.metadata[STAMP])
    return stamp


def _failures(table: "pa.Table", kept: Sequence[str]) -> Iterator[Failure]:
    """The failed documents in a table of results."""
    for row in table.filter(table["error"].is_valid()).to_pylist():
        code, _, message = row["error"].partition(": ")
        columns = {name: row[name] for name in kept}
        yield Failure(row["id"], code, message, index=row["index"], columns=columns)
