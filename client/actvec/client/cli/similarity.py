"""`actvec similarity`: how alike two texts, or the documents of a folder, are."""

import json
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from numpy.typing import NDArray

from actvec.client.cli.options import (
    Server,
    center_option,
    json_option,
    limit_option,
    talks_to_server,
    truncation_option,
)
from actvec.client.cli.pairs import failures_of, pair_up, tell_gaps
from actvec.client.documents import open_documents, read_text
from actvec.client.errors import ActvecError, InvalidArgument
from actvec.client.paired import PairedVectors, Selection, select
from actvec.client.similarity import Similarity, extreme_pairs, similarities, spread
from actvec.client.vectors import Document, Failure, Mode, Truncation

# Of more documents than this the matrices would be most of what --json prints.
_JSON_MATRIX = 200


@click.command
@click.argument("inputs", metavar="[A B | INPUT]", nargs=-1)
@click.option(
    "--mode",
    type=click.Choice(["short", "long"]),
    default="long",
    show_default=True,
    help="Compare one pool, or four and the whole vector.",
)
@center_option
@truncation_option
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Pairs of documents of INPUT that are shown, the closest and the farthest.",
)
@limit_option
@json_option
@talks_to_server
def similarity(
    server: Server,
    *,
    inputs: tuple[str, ...],
    mode: Mode,
    center: str | None,
    truncation: Truncation,
    top: int,
    limit: int,
    as_json: bool,
) -> None:
    """Show the cosines between texts, raw and (with --center) centred, pool by pool.

    A and B are two texts, or names of files with a text each. INPUT is a folder of .txt files or a
    file of documents as `stream` takes it: each is compared with every other. With nothing given,
    texts are asked for.
    """

    def compare(selection: Selection) -> bool:
        pairs = pair_up(server, selection, mode=mode, center=center, truncation=truncation)
        return _show(selection, pairs, top, as_json=as_json)

    match inputs:
        case ():
            if as_json:
                raise click.UsageError("--json needs two texts or an INPUT")
            for selection in _ask():
                try:
                    compare(selection)
                except ActvecError as error:
                    click.echo(f"Error: {error}", err=True)
            return
        case (source,):
            whole = compare(select(open_documents(source), limit))
        case (first, second):
            whole = compare(Selection((_document(first), _document(second))))
        case _:
            raise click.UsageError(
                f"give two texts or one INPUT, not {len(inputs)} arguments; quote a text of"
                " several words"
            )
    if not whole:
        raise click.exceptions.Exit(1)


def _ask() -> Iterator[Selection]:
    """Two texts at a time, until there is no answer."""
    click.echo("Two texts, or the names of two files; an empty line ends.")
    while True:
        documents = []
        for name in ("first", "second"):
            try:
                answer = click.prompt(name, default="", show_default=False)
            except click.Abort:  # the end of the input
                click.echo()
                return
            if not answer:
                return
            try:
                documents.append(_document(answer))
            except ActvecError as error:
                click.echo(f"Error: {error}", err=True)
                break
        else:
            yield Selection(tuple(documents))


def _document(given: str) -> Document:
    """A file's text where there is such a file, otherwise the words themselves.

    Raises:
        InvalidArgument: it is blank, a folder, a file that cannot be read, or reads like the name
            of one that is missing.
    """
    # os.path, which takes what cannot be a name, as a long text, for no file.
    if os.path.isfile(given):
        path = Path(given)
        try:
            return Document(path.name, read_text(path))
        except OSError as error:
            raise InvalidArgument(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise InvalidArgument(f"{path}: {error}") from error
    if not given.strip():
        raise InvalidArgument("a text is empty; give two texts, or the names of two files")
    if os.path.isdir(given):
        raise InvalidArgument(f"{given} is a folder; give it alone to compare what is in it")
    if given.endswith(".txt"):
        raise InvalidArgument(f"there is no file {given}; give two texts, or two files")
    return Document(_quote(given), given)


def _quote(text: str) -> str:
    words = textwrap.shorten(text, 48, placeholder=" …")
    return '"' + "".join(c if c.isprintable() else " " for c in words) + '"'


def _show(selection: Selection, pairs: PairedVectors, top: int, *, as_json: bool) -> bool:
    """Show what came out; whether every document is in it.

    Raises:
        InvalidArgument: there are no two vectors.
    """
    failures = failures_of(selection, pairs)
    for failure in failures:
        click.echo(f"{failure.id}: {failure.code}: {failure.message}", err=True)
    if len(pairs.raw) < 2:
        raise InvalidArgument(f"{len(pairs.raw)} documents have a vector, and two are the least")
    tables = similarities(pairs)
    if as_json:
        click.echo(json.dumps(_to_json(pairs, tables, selection.left_out, failures), indent=2))
    elif len(pairs.raw) == 2:
        _print_pair(pairs, tables)
    else:
        _print_all(pairs, tables, top)
    if pairs.centered and not as_json:
        click.echo(f"Centred by the corpus mean {pairs.centered[0].stamp.corpus_mean_id}.")
    tell_gaps(selection, pairs)
    if not pairs.centered and not as_json:
        click.echo("Raw only; --center latest shows the centred cosines beside them.", err=True)
    return not failures


def _print_pair(pairs: PairedVectors, tables: list[Similarity]) -> None:
    rows = [
        [name, vector.id, f"{vector.tokens:,} tokens"]
        for name, vector in zip("AB", pairs.raw, strict=True)
    ]
    _print_rows([], rows, names=2)
    columns = ["pool", "raw"] + (["centred"] if pairs.centered else [])
    _print_rows(columns, [[table.pool, *_cells(table, 0, 1)] for table in tables], names=1)


def _print_all(pairs: PairedVectors, tables: list[Similarity], top: int) -> None:
    click.echo(f"{len(pairs.raw):,} documents, each with every other")
    kinds = ["raw"] + (["centred"] if pairs.centered else [])
    columns = ["pool"] + [name for kind in kinds for name in (f"{kind} mean", "min", "max")]
    rows = []
    for table in tables:
        row = [table.pool]
        for matrix in _matrices(table):
            of = spread(matrix)
            row += [_number(of.mean), _number(of.lowest), _number(of.highest)]
        rows.append(row)
    _print_rows(columns, rows, names=1)
    whole = tables[-1]
    titles: tuple[Literal["closest", "farthest"], ...] = ("closest", "farthest")
    for which in titles if top else ():
        chosen = extreme_pairs(_matrices(whole)[-1], top, which)
        rows = [[pairs.raw[i].id, pairs.raw[j].id, *_cells(whole, i, j)] for i, j in chosen]
        _print_rows([f"{which} ({kinds[-1]}, {whole.pool})", "", *kinds], rows, names=2)


def _matrices(table: Similarity) -> list[NDArray[np.float64]]:
    return [table.raw] if table.centered is None else [table.raw, table.centered]


def _cells(table: Similarity, i: int, j: int) -> list[str]:
    return [_number(float(matrix[i, j])) for matrix in _matrices(table)]


def _number(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.4f}"


def _print_rows(columns: list[str], rows: list[list[str]], names: int) -> None:
    """A table on standard output, whose first columns are names and stand to the left."""
    from rich import box, console, table, text  # noqa: PLC0415 - slow to import

    grid = table.Table(box=box.SIMPLE_HEAD if columns else None, show_header=bool(columns))
    for number, name in enumerate(columns or rows[0]):
        if number < names:
            grid.add_column(name, overflow="fold")
        else:
            grid.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        grid.add_row(*map(text.Text, row))
    console.Console().print(grid)


def _to_json(
    pairs: PairedVectors, tables: list[Similarity], left_out: int, failures: list[Failure]
) -> dict[str, Any]:
    with_matrices = len(pairs.raw) <= _JSON_MATRIX
    return {
        "documents": [
            {"id": vector.id, "text_sha256": vector.text_sha256, "tokens": vector.tokens}
            for vector in pairs.raw
        ],
        "failures": [failure.to_dict() for failure in failures],
        "left_out": left_out,
        "corpus_mean": pairs.centered[0].stamp.corpus_mean_id if pairs.centered else None,
        "matrices_left_out": not with_matrices,
        "pools": [
            {
                "pool": table.pool,
                "raw": _matrix_json(table.raw, with_matrix=with_matrices),
                "centered": _matrix_json(table.centered, with_matrix=with_matrices),
            }
            for table in tables
        ],
    }


def _matrix_json(matrix: NDArray[np.float64] | None, *, with_matrix: bool) -> dict[str, Any] | None:
    if matrix is None:
        return None
    of = spread(matrix)
    summary: dict[str, Any] = {
        name: None if np.isnan(value) else value
        for name, value in (("mean", of.mean), ("lowest", of.lowest), ("highest", of.highest))
    }
    if with_matrix:
        summary["cosines"] = [
            [None if np.isnan(value) else value for value in row] for row in matrix.tolist()
        ]
    return summary
