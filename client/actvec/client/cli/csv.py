"""`actvec csv`: vectors of both modes as tables with one column per document."""

from dataclasses import replace
from pathlib import Path

import click

from actvec.client.analysis.csv_tables import write_tables
from actvec.client.analysis.paired import PairedVectors, Selection, select
from actvec.client.bulk.failures import write_failures
from actvec.client.cli.commands import Verb
from actvec.client.cli.options import Input, json_option, limit_option, reads_input
from actvec.client.cli.pairs import pair_up, tell_gaps
from actvec.client.cli.paths import AnyPath
from actvec.client.cli.printing import note, print_json, say
from actvec.client.cli.server import Connect, talks_to_server
from actvec.client.cli.settings import Asked, vector_options
from actvec.client.lock import visiting
from actvec.client.records.settings import VectorSettings


@click.command(cls=Verb)
@reads_input(required=False, keep=True)
@click.option("--samples", is_flag=True, help="Use the sample corpus instead of an INPUT.")
@vector_options(default="long", presets=False)
@click.option(
    "--out",
    type=AnyPath(),
    required=True,
    help="The folder to write to; created if missing.",
)
@limit_option
@json_option
@talks_to_server
def csv(
    server: Connect,
    *,
    source: Input,
    samples: bool,
    asked: Asked[VectorSettings],
    out: Path,
    limit: int,
    as_json: bool,
) -> None:
    """Write the vectors of INPUT as CSV files.

    INPUT is a folder or file of documents, as for `stream`. In a table each column is a document,
    under its id (under ID~INDEX if an earlier one has that id), and each row a dimension.

    \b
    vectors_<mode>_mode_raw.csv       both presets, raw
    vectors_<mode>_mode_centered.csv  both presets, with --center
    vectors_layer8_mean_raw.csv       or one table per layer and pool, with
                                      --pools or --separate
    vectors_lengths.csv               the tokens of each document
    vectors_metadata.json             what the vectors depend on, and --keep
    vectors_errors.jsonl              the documents that failed, if any; the
                                      exit code is then 1

    The command fails rather than replace a table of other vectors.
    """  # noqa: D301 - click's mark of lines that stay as they are
    selection = _selection(source, limit, samples=samples)
    out.mkdir(parents=True, exist_ok=True)
    pairs = pair_up(server, selection, asked)
    with visiting(out):
        paths = write_tables(out, pairs) if pairs.raw else []
    tell_gaps(selection, pairs)
    # Not errors.jsonl: that is of a job of `stream`, which may have the same folder.
    errors = out / "vectors_errors.jsonl"
    write_failures(errors, pairs.failures)
    _show(pairs, paths, selection.left_out, as_json=as_json)
    if pairs.failures:
        first = f"{pairs.failures[0].id!a}: {pairs.failures[0].message}"
        note(f"The documents that failed are listed in {errors}; the first is {first}")
        raise click.exceptions.Exit(1)


def _selection(source: Input, limit: int, *, samples: bool) -> Selection:
    if samples == (source.path is not None):
        raise click.UsageError("give an INPUT, or --samples for the sample corpus")
    selection = select(source.or_samples(), limit)
    labels: set[str] = set()
    documents = []
    for index, document in zip(selection.indices, selection.documents, strict=True):
        # A column has a name of its own; see `FileSink`, which names files in the same way.
        label = document.id
        while label in labels:
            label += f"~{index}"
        labels.add(label)
        documents.append(replace(document, id=label))
    return replace(selection, documents=tuple(documents))


def _show(pairs: PairedVectors, paths: list[Path], left_out: int, *, as_json: bool) -> None:
    mean = pairs.mean
    if as_json:
        summary = {
            "documents": len(pairs.raw),
            "failed": len(pairs.failures),
            "left_out": left_out,
            "corpus_mean": mean and mean.id,
            "files": [str(path) for path in paths],
        }
        print_json(summary, indent=None)
        return
    if not paths:
        note("No document has a vector, so no table was written.")
        return
    for path in paths:
        say(str(path))
    centered = f"raw and centered by {mean.name} ({mean.id})" if mean else ""
    kinds = centered or "raw only; --center adds centered tables"
    say(f"{len(pairs.raw):,} documents, {kinds}")
