"""`actvec stream`: the vectors of many documents, on disk."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from actvec.client.bulk import JobProgress, Layout, VectorJob
from actvec.client.bulk.failures import first_failure
from actvec.client.cli.commands import Verb
from actvec.client.cli.layout import layout_options, save_every_option
from actvec.client.cli.options import (
    Input,
    json_option,
    reads_input,
    retry_for_option,
)
from actvec.client.cli.pairs import tell_mean, tell_shortened
from actvec.client.cli.paths import URLS, AnyPath
from actvec.client.cli.printing import note, print_json, say
from actvec.client.cli.progress import describe, job_words, show_progress
from actvec.client.cli.server import Connect, talks_to_server
from actvec.client.cli.settings import Asked, vector_options
from actvec.client.records.settings import VectorSettings


@click.command(cls=Verb)
@reads_input(shard=True, keep=True)
@vector_options()
@click.option(
    "--out",
    type=AnyPath(url_okay=True),
    required=True,
    help=f"The folder to write to; created if missing. For shards and parquet also {URLS}.",
)
@layout_options("files")
@click.option("--ordered", is_flag=True, help="Write vectors in the order of the documents.")
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the job in --out; start it if there is none. Settings and INPUT must be the"
    " same as before.",
)
@save_every_option
@click.option(
    "--window",
    type=click.IntRange(min=1),
    metavar="DOCUMENTS",
    help="The most documents in flight: sent, and not yet answered. One of more than 16,384"
    " characters, or with a vector of more than 256 KiB, counts as several.  [default: twice as"
    " many as the server accepts from one stream]",
)
@retry_for_option
@json_option
@talks_to_server
def stream(
    server: Connect,
    *,
    source: Input,
    asked: Asked[VectorSettings],
    out: Path | str,
    layout: Layout,
    ordered: bool,
    resume: bool,
    save_every: float,
    window: int | None,
    retry_for: float,
    as_json: bool,
) -> None:
    """Turn the documents of INPUT into vectors on disk.

    INPUT is a folder of .txt files; JSON lines (.jsonl, .ndjson or .json) with a `text` and an
    optional `id` per line; or a table with such columns: .csv, .tsv or .parquet. All but Parquet
    may be compressed (.gz, .zst, .xz, .bz2). `-` reads JSON lines from standard input. If documents
    fail, errors.jsonl in the output folder lists them, the others are kept, and the exit code is 1.

    The folder's manifest.json describes the job. --resume continues a job that was killed; without
    it, a folder that holds a job is refused. Other files in the folder stay, except those of the
    same names.
    """
    documents = source.open()
    if resume and documents.size is None:
        note(f"{source.path} can be read only once, so this job cannot be resumed")
    job: VectorJob | None = None
    told = asked.settings.center is None
    try:
        with (
            _terminable(),
            server.connect(retry_for=retry_for) as client,
            show_progress() as display,
        ):

            def update(progress: JobProgress) -> None:
                nonlocal told
                # With the first vector, by the id in its stamp: `latest` may be another one by now.
                if not told and progress.vectors and job and job.center:
                    told = True
                    tell_mean(client.get_mean(job.center))
                display.update(
                    progress.done_bytes, progress.input_bytes, lambda: job_words(progress)
                )

            job = VectorJob(
                documents,
                out,
                asked.of(client),
                layout=layout,
                ordered=ordered,
                resume=resume,
                save_every=save_every,
            )
            progress = job.run(client, window=window, on_progress=update)
    except OSError as error:
        done = JobProgress() if job is None else job.progress
        raise click.ClickException(_broken_off(error, done)) from error
    except BaseException:
        if job is not None and job.progress.documents:
            note(f"Stopped after {describe(job.progress)}; {_durable(job.progress)}")
        raise
    _summarize(progress, job, as_json=as_json)
    if progress.failed:
        raise click.exceptions.Exit(1)


def _broken_off(error: OSError, progress: JobProgress) -> str:
    """What a disk did, and what that leaves, in one line."""
    where = f": {error.filename}" if error.filename else ""
    # Without a document nothing changed, and what was there may not have been counted yet.
    durable = f"; {_durable(progress)}" if progress.documents else ""
    return f"{error.strerror or error}{where}{durable}"


def _durable(progress: JobProgress) -> str:
    """What is left of a job that was cut short, and how it continues."""
    vectors = "1 vector is" if progress.durable == 1 else f"{progress.durable:,} vectors are"
    rest = "" if progress.input_bytes is None else "; --resume computes the rest"
    return f"{vectors} durable{rest}"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """End in good order on SIGTERM, as before a machine is taken away."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _summarize(progress: JobProgress, job: VectorJob, *, as_json: bool) -> None:
    if progress.lost:
        files = f" ({', '.join(progress.lost_files)})" if progress.lost_files else ""
        note(
            f"{progress.lost:,} vectors of an earlier run were missing in {job.place}{files}, and"
            " were computed again"
        )
    if progress.repeated_ids:
        have = "document has" if progress.repeated_ids == 1 else "documents have"
        note(
            f"{progress.repeated_ids:,} {have} the id of another one, for example"
            f" {progress.repeated_id!a}; `index`, the number in INPUT, tells them apart"
        )
    errors = str(job.errors).replace(str(job.folder), job.place) if progress.failed else None
    first = first_failure(job.errors)
    if as_json:
        summary = {
            "vectors": progress.vectors,
            "failed": progress.failed,
            "tokens": progress.tokens,
            "shortened": progress.shortened,
            "resumed": progress.resumed_vectors + progress.resumed_failed,
            "lost": progress.lost,
            "repeated_ids": progress.repeated_ids,
            "seconds": round(progress.seconds, 3),
            "out": job.place,
            "errors": errors,
            "first_error": first,
        }
        print_json(summary, indent=None)
        return
    say(f"{describe(progress)}; in {job.place}")
    if progress.shortened:
        tell_shortened(progress.shortened, progress.vectors)
    if errors:
        note(f"The documents that failed are listed in {errors}; the first is {first}")
