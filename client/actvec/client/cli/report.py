"""`actvec report`: vectors, to look at."""

from pathlib import Path

import click

from actvec.client.analysis.paired import Selection, select
from actvec.client.analysis.report import (
    Material,
    gather,
    gather_stored,
    gather_tables,
    write_pictures,
    write_report,
)
from actvec.client.cli.commands import Verb
from actvec.client.cli.findings.folder import whiten_option
from actvec.client.cli.options import Input, limit_option, read_document, reads_input
from actvec.client.cli.pairs import (
    pair_up,
    tell_gaps,
)
from actvec.client.cli.paths import AnyPath
from actvec.client.cli.printing import note, say
from actvec.client.cli.server import Connect, talks_to_server
from actvec.client.cli.settings import Asked, vector_options
from actvec.client.extras import import_extra
from actvec.client.findings import Whitening
from actvec.client.records.settings import VectorSettings
from actvec.client.records.vectors import Document
from actvec.client.stored.loading import load


@click.command(cls=Verb)
@reads_input(required=False, keep=True)
@click.option("--text", help="Show this text.")
@click.option("--file", "path", type=AnyPath(), help="Show the text of this file.")
@click.option("--samples", is_flag=True, help="Show the sample corpus.")
@click.option(
    "--csv",
    "tables",
    nargs=2,
    metavar="RAW.csv CENTERED.csv",
    type=AnyPath(dir_okay=False),
    help="Read tables that `actvec csv` wrote, without a server.",
)
@click.option(
    "--vectors",
    "folder",
    metavar="FOLDER",
    type=AnyPath(),
    help="Read vectors that `stream` made, without a server; raw ones are centered by their own"
    " average. Color the map by the columns that `stream --keep` stored.",
)
@whiten_option
@vector_options(default="long")
@limit_option
@click.option(
    "--out",
    type=AnyPath(dir_okay=False),
    default=Path("report.html"),
    help="The HTML file to write.",
)
@click.option(
    "--png",
    type=AnyPath(),
    help="Also write the figures as PNG files to this folder.",
)
@click.option(
    "--umap",
    is_flag=True,
    help="Add a map by UMAP to the one by PCA; needs pip install 'actvec[umap]'.",
)
@talks_to_server
def report(
    server: Connect,
    *,
    source: Input,
    text: str | None,
    path: Path | None,
    samples: bool,
    tables: tuple[Path, Path] | None,
    folder: Path | None,
    whitening: Whitening | None,
    asked: Asked[VectorSettings],
    limit: int,
    out: Path,
    png: Path | None,
    umap: bool,
) -> None:
    """Write one HTML file to look at: which documents are alike, raw and (with --center) centered.

    It shows INPUT (a folder or file of documents, as for `stream`), one text, the sample corpus,
    vectors on disk, or tables of `actvec csv` (give --mode if you renamed them). Columns that you
    --keep can color the map. The file needs no network. It contains the text of the first document
    and the beginning of each.
    """
    if (
        sum(
            given is not None
            for given in (source.path, text, path, samples or None, tables, folder)
        )
        != 1
    ):
        raise click.UsageError("give one of INPUT, --text, --file, --samples, --vectors and --csv")
    if whitening is not None and folder is None:
        raise click.UsageError("--whiten is for --vectors")
    if asked.settings.center is not None and (tables or folder is not None):
        raise click.UsageError(
            "--center is for vectors that a server makes, not --vectors or --csv"
        )
    # Before anything is computed in vain.
    if png is not None:
        import_extra("choreographer", "report")
    if umap:
        import_extra("umap", "umap")
    failed = False
    if tables:
        source.refuse_columns()
        material = gather_tables(*tables, mode=asked.preset)
    elif folder is not None:
        source.refuse_columns()
        pools = asked.settings.pool_names if asked.preset else asked.settings.pools
        vectors = load(folder).pick(asked.settings.layers or None, pools or None)
        material = gather_stored(vectors, whitening, limit=limit)
    else:
        selection = _selection(source, text, path, limit)
        material, failed = _ask(server, selection, asked)
    write_report(out, material, umap=umap)
    count = len(material.ids)
    say(f"{out}: {count:,} document{'s' * (count != 1)}")
    if png is not None:
        for picture in write_pictures(png, material):
            say(str(picture))
    if failed:
        raise click.exceptions.Exit(1)


def _selection(source: Input, text: str | None, path: Path | None, limit: int) -> Selection:
    if text is None and path is None:
        return select(source.or_samples(), limit)
    source.refuse_columns()
    if text is not None:
        return Selection((Document("text", text),))
    assert path is not None  # noqa: S101 - of the two, one is given
    return Selection((read_document(path, path.stem),))


def _ask(
    server: Connect, selection: Selection, asked: Asked[VectorSettings]
) -> tuple[Material, bool]:
    pairs = pair_up(server, selection, asked)
    tell_gaps(selection, pairs)
    for failure in pairs.failures:
        note(f"{failure.id!a} is not in the report: {failure.message}")
    mean = None
    if pairs.centered:
        with server.connect() as client:
            mean = client.download_mean(pairs.centered[0].stamp.corpus_mean_id)
    return gather(pairs, selection.documents, mean), bool(pairs.failures)
