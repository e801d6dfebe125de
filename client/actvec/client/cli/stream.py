"""`actvec stream`: the vectors of many documents, on disk."""

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from actvec.client.bulk import (
    MAX_ROWS_PER_FILE,
    ROWS_PER_FILE,
    Format,
    JobProgress,
    Layout,
    VectorJob,
)
from actvec.client.cli.options import (
    Server,
    column_options,
    json_option,
    shard_option,
    talks_to_server,
    vector_options,
)
from actvec.client.cli.progress import describe, show_progress
from actvec.client.documents import Columns, Shard, open_documents
from actvec.client.files import FILE_DTYPE, Dtype
from actvec.client.vectors import Mode, Truncation


@click.command
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@vector_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder to write to; created where it is missing.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["files", "shards", "parquet"]),
    default="files",
    show_default=True,
    help="A safetensors file a document, as `actvec extract` writes; or files of many rows:"
    " safetensors with an index (vectors-00000.safetensors and .jsonl), or Parquet"
    " (vectors.parquet/part-00000.parquet).",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default=FILE_DTYPE,
    show_default=True,
    help="How the numbers are written.",
)
@click.option(
    "--rows-per-file",
    type=click.IntRange(min=1, max=MAX_ROWS_PER_FILE),
    metavar="N",
    help=f"Vectors of a shard or Parquet file; memory holds one file.  [default: {ROWS_PER_FILE}]",
)
@shard_option
@column_options
@click.option("--ordered", is_flag=True, help="Write vectors in the order of the documents.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the job in --out, whatever ended it; begin it where there is none. Settings"
    " and INPUT must be those that it was begun with.",
)
@click.option(
    "--save-every",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="Write a shard or Parquet file that is not full after this time, so that a kill costs no"
    " more.",
)
@click.option(
    "--window",
    type=click.IntRange(min=1),
    metavar="DOCUMENTS",
    help="In flight at a time; one of more than 16,384 characters counts as several.  [default:"
    " twice what the server has inside]",
)
@click.option(
    "--retry-for",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=300.0,
    show_default=True,
    help="Without progress, after which a broken connection is given up.",
)
@json_option
@talks_to_server
def stream(
    server: Server,
    *,
    source: Path,
    mode: Mode,
    center: str | None,
    truncation: Truncation,
    bos: bool | None,
    out: Path,
    format_: Format,
    dtype: Dtype,
    rows_per_file: int | None,
    shard: Shard | None,
    columns: Columns,
    ordered: bool,
    resume: bool,
    save_every: float,
    window: int | None,
    retry_for: float,
    as_json: bool,
) -> None:
    """Turn the documents of INPUT into vectors on disk.

    INPUT is a folder of .txt files; JSON lines (.jsonl or .json, also .gz or .zst) with a `text`
    and an optional `id` per line; or a .parquet file with such columns. `-` reads JSON lines from
    standard input. Documents that fail are listed in errors.jsonl in the output folder, the others
    are kept, and the exit code is 1.

    The folder's manifest.json says what the job is. A job that was killed goes on with --resume;
    without it, a folder that holds a job already is refused. Other files in the folder stay, save
    for those of the same names.
    """
    if format_ == "files" and rows_per_file is not None:
        raise click.UsageError("--rows-per-file is for --format shards and --format parquet")
    documents = open_documents(source, shard, columns)
    if resume and documents.size is None:
        click.echo(f"{source} can be read only once: this job cannot be resumed", err=True)
    job = VectorJob(
        documents,
        out,
        mode=mode,
        center=center,
        truncation=truncation,
        prepend_bos=bos,
        layout=Layout(format_, dtype, rows_per_file or ROWS_PER_FILE),
        ordered=ordered,
        resume=resume,
        save_every=save_every,
    )
    latest = JobProgress()
    try:
        with (
            _terminable(),
            server.connect(retry_for=retry_for) as client,
            show_progress() as display,
        ):

            def update(progress: JobProgress) -> None:
                nonlocal latest
                latest = progress
                display.update(progress)

            latest = job.run(client, window=window, on_progress=update)
    except BaseException:
        if latest.documents:
            advice = "" if latest.input_bytes is None else "; --resume goes on from there"
            click.echo(f"Stopped after {describe(latest)}{advice}", err=True)
        raise
    _summarize(latest, job, as_json=as_json)
    if latest.failed:
        raise click.exceptions.Exit(1)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """End in good order where SIGTERM asks for it, as before a machine is taken away."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _summarize(progress: JobProgress, job: VectorJob, *, as_json: bool) -> None:
    errors = str(job.errors) if progress.failed else None
    if as_json:
        summary = {
            "vectors": progress.vectors,
            "failed": progress.failed,
            "tokens": progress.tokens,
            "shortened": progress.shortened,
            "resumed": progress.resumed_vectors + progress.resumed_failed,
            "seconds": round(progress.seconds, 3),
            "out": str(job.folder),
            "errors": errors,
        }
        click.echo(json.dumps(summary))
        return
    click.echo(f"{describe(progress)}; in {job.folder}")
    if progress.shortened:
        click.echo(
            "Longer than the corpus mean, and centred over their last tokens only (tokens_used):"
            f" {progress.shortened:,} of {progress.vectors:,} documents",
            err=True,
        )
    if errors:
        click.echo(f"The documents that failed are listed in {errors}", err=True)
