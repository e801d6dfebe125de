"""`actvec report`: vectors, to look at."""

from pathlib import Path

import click

from actvec.client.cli.options import (
    Server,
    center_option,
    limit_option,
    talks_to_server,
    truncation_option,
)
from actvec.client.cli.pairs import failures_of, pair_up, tell_gaps
from actvec.client.documents import open_documents, read_text
from actvec.client.extras import import_extra
from actvec.client.paired import Selection, select
from actvec.client.report.gather import Material, gather, gather_tables
from actvec.client.report.page import write_pictures, write_report
from actvec.client.samples import sample_corpus
from actvec.client.vectors import Document, Mode, Truncation


@click.command
@click.argument("source", metavar="[INPUT]", type=click.Path(path_type=Path), required=False)
@click.option("--text", help="One text.")
@click.option("--file", "path", type=click.Path(path_type=Path), help="A file with one text.")
@click.option("--samples", is_flag=True, help="Take the sample corpus.")
@click.option(
    "--csv",
    "tables",
    nargs=2,
    metavar="RAW.csv CENTRED.csv",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Tables that `actvec csv` wrote; no server is asked.",
)
@click.option(
    "--mode",
    type=click.Choice(["short", "long"]),
    help="One pool, or four; of tables, the mode that they are of.  [default: long; of tables, what"
    " their names say as `actvec csv` gave them]",
)
@center_option
@truncation_option
@limit_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="The HTML file to write.",
)
@click.option("--png", type=click.Path(path_type=Path), help="A folder for the figures as PNG.")
@talks_to_server
def report(
    server: Server,
    *,
    source: Path | None,
    text: str | None,
    path: Path | None,
    samples: bool,
    tables: tuple[Path, Path] | None,
    mode: Mode | None,
    center: str | None,
    truncation: Truncation,
    limit: int,
    out: Path,
    png: Path | None,
) -> None:
    """Write one HTML file with figures of vectors, raw and (with --center) centred.

    It shows INPUT (what `stream` takes), one text, the sample corpus, or tables of `actvec csv`.
    The file needs no network. The text of the first document is in it.
    """
    if sum((source is not None, text is not None, path is not None, samples, bool(tables))) != 1:
        raise click.UsageError("give one of INPUT, --text, --file, --samples and --csv")
    # Before anything is computed in vain.
    import_extra("plotly", "report")
    failed = False
    if tables:
        material = gather_tables(*tables, mode=mode)
    else:
        selection = _selection(source, text, path, limit)
        material, failed = _ask(server, selection, mode or "long", center, truncation)
    write_report(out, material)
    click.echo(f"{out}: {len(material.labels):,} documents")
    if png is not None:
        for picture in write_pictures(png, material):
            click.echo(picture)
    if failed:
        raise click.exceptions.Exit(1)


def _selection(source: Path | None, text: str | None, path: Path | None, limit: int) -> Selection:
    if source is not None:
        return select(open_documents(source), limit)
    if text is not None:
        return Selection((Document("text", text),))
    if path is not None:
        try:
            return Selection((Document(path.stem, read_text(path)),))
        except ValueError as error:
            raise click.UsageError(f"{path}: {error}") from None
    return select(sample_corpus(), limit)


def _ask(
    server: Server, selection: Selection, mode: Mode, center: str | None, truncation: Truncation
) -> tuple[Material, bool]:
    pairs = pair_up(server, selection, mode=mode, center=center, truncation=truncation)
    tell_gaps(selection, pairs)
    failures = failures_of(selection, pairs)
    for failure in failures:
        click.echo(f"{failure.id!a} is not in the report: {failure.message}", err=True)
    mean = None
    if pairs.centered:
        with server.connect() as client:
            mean = client.download_mean(pairs.centered[0].stamp.corpus_mean_id)
    first = pairs.raw[0] if pairs.raw else None
    shown = next((d for d in selection.documents if first is not None and d.id == first.id), None)
    return gather(pairs, shown, mean), bool(failures)
