"""`actvec csv`: vectors of both modes as tables, a column a document."""

import json
from pathlib import Path

import click

from actvec.client.cli.options import (
    Server,
    center_option,
    json_option,
    limit_option,
    talks_to_server,
    truncation_option,
)
from actvec.client.cli.pairs import failures_of, pair_up, tell_gaps
from actvec.client.documents import open_documents
from actvec.client.paired import PairedVectors, Selection, select
from actvec.client.samples import sample_corpus
from actvec.client.vector_tables import write_tables
from actvec.client.vectors import Document, Failure, Truncation
from actvec.client.whole import write_whole


@click.command
@click.argument("source", metavar="[INPUT]", type=click.Path(path_type=Path), required=False)
@click.option("--samples", is_flag=True, help="Take the sample corpus instead of an INPUT.")
@center_option
@truncation_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder to write to; created where it is missing.",
)
@limit_option
@json_option
@talks_to_server
def csv(
    server: Server,
    *,
    source: Path | None,
    samples: bool,
    center: str | None,
    truncation: Truncation,
    out: Path,
    limit: int,
    as_json: bool,
) -> None:
    """Write the vectors of INPUT, in both modes, as CSV files.

    INPUT is what `stream` takes. vectors_<mode>_mode_raw.csv and, with --center,
    vectors_<mode>_mode_centered.csv have a column a document, under its id, and a row a dimension;
    vectors_lengths.csv has their tokens, and vectors_metadata.json says what they depend on.
    Documents that fail are listed in vectors_errors.jsonl, and the exit code is 1.
    """
    selection = _selection(source, limit, samples=samples)
    out.mkdir(parents=True, exist_ok=True)
    pairs = pair_up(server, selection, mode="long", center=center, truncation=truncation)
    paths = write_tables(out, pairs) if pairs.raw else []
    tell_gaps(selection, pairs)
    failures = failures_of(selection, pairs)
    # Not errors.jsonl: that is of a job of `stream`, which may have the same folder.
    errors = out / "vectors_errors.jsonl"
    errors.unlink(missing_ok=True)
    if failures:
        lines = "".join(json.dumps(failure.to_dict()) + "\n" for failure in failures)
        write_whole(errors, lines.encode())
    _show(pairs, paths, selection.left_out, len(failures), as_json=as_json)
    if failures:
        click.echo(f"The documents that failed are listed in {errors}", err=True)
        raise click.exceptions.Exit(1)


def _selection(source: Path | None, limit: int, *, samples: bool) -> Selection:
    if samples == (source is not None):
        raise click.UsageError("give an INPUT, or --samples for the sample corpus")
    selection = select(sample_corpus() if source is None else open_documents(source), limit)
    documents: dict[str, Document] = {}
    failures = list(selection.failures)
    for index, document in zip(selection.indices, selection.documents, strict=True):
        if document.id in documents:
            failures.append(
                Failure(
                    document.id,
                    "FAILED_PRECONDITION",
                    f"another document has the id {document.id!a}, and so the same column; give"
                    " each its own",
                    "id",
                    index,
                )
            )
        else:
            documents[document.id] = document
    return Selection(tuple(documents.values()), tuple(failures), selection.left_out)


def _show(
    pairs: PairedVectors, paths: list[Path], left_out: int, failed: int, *, as_json: bool
) -> None:
    mean = pairs.centered[0].stamp.corpus_mean_id if pairs.centered else None
    if as_json:
        summary = {
            "documents": len(pairs.raw),
            "failed": failed,
            "left_out": left_out,
            "corpus_mean": mean,
            "files": [str(path) for path in paths],
        }
        click.echo(json.dumps(summary))
        return
    if not paths:
        click.echo("No document has a vector, and no table was written.", err=True)
        return
    for path in paths:
        click.echo(path)
    centered = f"raw and centred by {mean}" if mean else "raw; --center adds centred ones"
    click.echo(f"{len(pairs.raw):,} documents, {centered}")
