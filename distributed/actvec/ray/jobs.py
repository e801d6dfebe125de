"""The vectors of a corpus, computed by a Ray cluster and resumed after a kill."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actvec.client.bulk.failures import write_failures
from actvec.client.bulk.remote import is_remote
from actvec.client.bulk.sinks.kept_columns import check_names
from actvec.client.documents import DocumentSource
from actvec.client.errors import FailedPrecondition
from actvec.client.extras import import_extra
from actvec.client.files import given_path
from actvec.client.lock import locked
from actvec.client.records.means import CorpusMean
from actvec.client.records.vectors import Failure
from actvec.ray.documents import (
    CONTENT,
    SOURCE_COLUMNS,
    begin_job,
    keep_documents,
    unreadable,
)
from actvec.ray.means import FileSums, merge_parts, parts_of
from actvec.ray.stores import RESULTS, SUMS, VECTORS, StoreSums, StoreVectors, store_job
from actvec.ray.vectors import ADDED, ActivationVectors

# Bytes after which Ray writes a block of vectors. A kill costs the unwritten blocks.
BLOCK_BYTES = 16 << 20

# Column names that documents may not use.
_OURS = ("index", "id", *CONTENT, *ADDED)

# CPUs beside the workers': a resumed run hangs unless Ray finds some to read the documents, to drop
# finished ones and to write.
SPARE_CPUS = 3


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
    batch_size: int = 256,
    block_bytes: int = BLOCK_BYTES,
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
        batch_size: Documents per call of an actor.
        block_bytes: Bytes after which to write vectors; at a URL, after each file of documents.
        **options: Options of `ActivationVectors`.

    Raises:
        FailedPrecondition: the folder holds another job, or the cluster has too few CPUs.
        InvalidArgument: a column that the source keeps has the name of a column of ours.
        Aborted: another process runs the job.
        MissingExtra: Ray is not installed.
        ray.exceptions.RayTaskError: a worker failed; its error is the cause.
        OSError: the folder cannot be written.
    """
    ray = import_extra("ray", "ray")
    import_extra("ray.data", "ray")
    if not ray.is_initialized():
        ray.init()
    _check_cpus(ray, workers)
    check_names(source.kept, _OURS)
    pool = {"num_gpus": gpus or None, "batch_format": "pyarrow"}
    if is_remote(out):
        return _write_far_vectors(source, str(out), workers, pool, options)
    out = given_path(out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        begin_job(source, out, options)
        documents = keep_documents(source, out)
        before = _rows(out / "vectors")
        with _checkpointed(ray, out / "checkpoint", block_bytes):
            ray.data.read_parquet(str(documents)).map_batches(
                ActivationVectors,
                fn_constructor_kwargs={**options, **SOURCE_COLUMNS, "spans_column": "spans"},
                batch_size=batch_size,
                compute=ray.data.ActorPoolStrategy(size=workers),
                **pool,
            ).drop_columns(list(CONTENT)).write_parquet(str(out / "vectors"))
        return _finish(out, before, source.kept)


def write_mean(
    source: DocumentSource,
    out: str | Path,
    *,
    name: str,
    workers: int = 1,
    gpus: float = 0,
    **options: Any,
) -> CorpusMean:
    """The mean of a source's documents, in a file as a server stores it; run again, it continues.

    Each document counts once, whatever was killed. Sums of parts of the source are in a hidden
    folder beside the file until all are there.

    Args:
        source: The documents.
        out: The safetensors file to write, in a folder that all workers reach under the same
            absolute path; or its URL, with credentials on each worker.
        name: The mean's name.
        workers: Actors, each with a model.
        gpus: GPUs of an actor.
        **options: Of `PartialMeans`.

    Returns:
        The mean's record.

    Raises:
        FailedPrecondition: another job for this file was begun, or the cluster has too few CPUs.
        Aborted: another process is at the job.
        RequestError: the name is invalid, or no document is usable.
        MissingExtra: Ray is not installed.
        ray.exceptions.RayTaskError: a worker failed; its error is the cause.
        OSError: a file cannot be written.
    """
    ray = import_extra("ray", "ray")
    import_extra("ray.data", "ray")
    pq = import_extra("pyarrow.parquet", "ray")
    if not ray.is_initialized():
        ray.init()
    _check_cpus(ray, workers)
    pool = {"num_gpus": gpus or None, "batch_format": "pyarrow", "batch_size": 1}
    if is_remote(out):
        return _write_far_mean(source, str(out), workers, pool, {"name": name, **options})
    out = given_path(out).absolute()
    folder = out.with_name(f".{out.name}.parts")
    sums = folder / "sums"
    sums.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        begin_job(source, folder, {"name": name, **options})
        documents = keep_documents(source, folder)
        parts = parts_of(sorted(path.name for path in documents.iterdir()))
        left = [{"files": files} for files in parts if not (sums / files[0]).exists()]
        asked = {"name": name, "documents": str(documents), "sums": str(sums)}
        _map(FileSums, left, workers, pool, {**options, **SOURCE_COLUMNS, **asked})
        rows = (row for files in parts for row in pq.read_table(sums / files[0]).to_pylist())
        made = merge_parts(rows, out, name, unreadable(folder))
    shutil.rmtree(folder)
    return made


def _write_far_vectors(
    source: DocumentSource, url: str, workers: int, pool: dict[str, Any], options: dict[str, Any]
) -> RayVectors:
    with store_job(source, url, options) as job:
        left = [{"file": name} for name in job.left(VECTORS)]
        asked = {**options, **SOURCE_COLUMNS, "spans_column": "spans", "url": job.remote.url}
        _map(StoreVectors, left, workers, pool | {"batch_size": 1}, asked)
        counts = _Counts(unreadable(job.remote.copy))
        computed = 0
        for name, table in zip(job.files, job.tables(RESULTS, job.files), strict=True):
            counts.add(table, source.kept)
            computed += len(table) if {"file": name} in left else 0
        write_failures(job.remote.copy / "errors.jsonl", counts.failures)
        if left:
            job.finish()
        return RayVectors(counts.rows - counts.failed, len(counts.failures), computed)


def _write_far_mean(
    source: DocumentSource, url: str, workers: int, pool: dict[str, Any], options: dict[str, Any]
) -> CorpusMean:
    folder, _, file = url.rpartition("/")
    with store_job(source, f"{folder}/.{file}.parts", options) as job:
        parts = parts_of(job.files)
        there = set(job.files) - set(job.left(SUMS))
        left = [{"files": files} for files in parts if files[0] not in there]
        asked = {**options, **SOURCE_COLUMNS, "url": job.remote.url}
        _map(StoreSums, left, workers, pool, asked)
        tables = job.tables(SUMS, [files[0] for files in parts])
        rows = (row for table in tables for row in table.to_pylist())
        made = merge_parts(rows, url, options["name"], unreadable(job.remote.copy))
        job.remove()
    return made


def _map(
    step: type,
    rows: list[dict[str, Any]],
    workers: int,
    pool: dict[str, Any],
    asked: dict[str, Any],
) -> None:
    """Let workers do a step for each row; the rows are as many blocks."""
    data = import_extra("ray.data", "ray")
    if rows:
        data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            step,
            fn_constructor_kwargs=asked,
            compute=data.ActorPoolStrategy(size=min(workers, len(rows))),
            **pool,
        ).materialize()


def _check_cpus(ray: Any, workers: int) -> None:
    """Raise FailedPrecondition if a run would wait forever."""
    there, needed = int(ray.cluster_resources().get("CPU", 0)), workers + SPARE_CPUS
    if there < needed:
        raise FailedPrecondition(
            f"{workers} workers need {needed} CPUs, one each and {SPARE_CPUS} to read, filter and"
            f" write, and the cluster declares {there}: a resumed run would wait forever."
            " Take fewer workers, or declare more CPUs: ray start --num-cpus, or"
            " ray.init(num_cpus=...)"
        )


@contextmanager
def _checkpointed(ray: Any, path: Path, block_bytes: int) -> Iterator[None]:
    """Make Ray record each block written within the block, under an absolute path."""
    context = ray.data.DataContext.get_current()
    checkpoint = import_extra("ray.data.checkpoint", "ray")
    before = context.checkpoint_config, context.target_max_block_size
    context.checkpoint_config = checkpoint.CheckpointConfig(
        id_column="index", checkpoint_path=str(path), delete_checkpoint_on_success=False
    )
    # With Ray's default, 128 MiB, a small corpus would have nothing durable before its end.
    context.target_max_block_size = block_bytes
    try:
        yield
    finally:
        context.checkpoint_config, context.target_max_block_size = before


def _rows(folder: Path) -> int:
    pq = import_extra("pyarrow.parquet", "ray")
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


def _finish(out: Path, before: int, kept: Sequence[str]) -> RayVectors:
    """Count the results, and list the failed documents."""
    pq = import_extra("pyarrow.parquet", "ray")
    counts = _Counts(unreadable(out))
    for path in sorted((out / "vectors").glob("*.parquet")):
        counts.add(pq.read_table(path, columns=["index", "id", "error", *kept]), kept)
    write_failures(out / "errors.jsonl", counts.failures)
    return RayVectors(counts.rows - counts.failed, len(counts.failures), counts.rows - before)


class _Counts:
    """Counts results, and lists the failed documents."""

    def __init__(self, unreadable: list[Failure]) -> None:
        self.rows = self.failed = 0
        self.failures = unreadable

    def add(self, table: Any, kept: Sequence[str]) -> None:
        """Count the rows of a table of results."""
        self.rows += len(table)
        for row in table.filter(table["error"].is_valid()).to_pylist():
            code, _, message = row["error"].partition(": ")
            columns = {name: row[name] for name in kept}
            failure = Failure(row["id"], code, message, index=row["index"], columns=columns)
            self.failures.append(failure)
            self.failed += 1
