"""`actvec similarity`: how alike two texts, or the documents of a folder, are."""

import os
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from numpy.typing import NDArray

from actvec.client.analysis.paired import PairedVectors, Selection, select
from actvec.client.analysis.similarity import Similarity, extreme_pairs, similarities, spread
from actvec.client.cli.commands import Verb
from actvec.client.cli.findings.folder import whiten_option
from actvec.client.cli.options import (
    Input,
    column_options,
    json_option,
    limit_option,
    read_document,
)
from actvec.client.cli.pairs import pair_up, tell_gaps
from actvec.client.cli.paths import AnyPath
from actvec.client.cli.printing import note, print_json, print_rows, say
from actvec.client.cli.server import Connect, talks_to_server
from actvec.client.cli.settings import Asked, vector_options
from actvec.client.documents import Columns
from actvec.client.errors import InvalidArgument
from actvec.client.findings import Whitening
from actvec.client.records.settings import VectorSettings
from actvec.client.records.vectors import Document

# Of more documents than this the matrices would be most of what --json prints.
_JSON_MATRIX = 200


@click.command(cls=Verb)
@click.argument("inputs", metavar="A B | INPUT", nargs=-1)
@vector_options(default="long")
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=5,
    help="Show this many of the closest and of the farthest pairs of INPUT.",
)
@whiten_option
@limit_option
@column_options
@json_option
@talks_to_server
def similarity(
    server: Connect,
    *,
    inputs: tuple[str, ...],
    asked: Asked[VectorSettings],
    top: int,
    whitening: Whitening | None,
    limit: int,
    columns: Columns,
    as_json: bool,
) -> None:
    """Show the cosines between texts, raw and (with --center) centered, pool by pool.

    A and B are two texts, or names of files with a text each. INPUT is a folder of .txt files or a
    file of documents as `stream` takes it: each is compared with every other.
    """
    match inputs:
        case (source,):
            selection = select(Input(AnyPath().convert(source, None, None), columns).open(), limit)
        case (first, second):
            Input(None, columns).refuse_columns()
            selection = Selection((_document(first), _document(second)))
        case _:
            raise click.UsageError(
                f"give two texts or one INPUT, not {len(inputs) or 'nothing'}; quote a text of"
                " several words"
            )
    pairs = pair_up(server, selection, asked)
    if not _show(selection, pairs, whitening, top, as_json=as_json):
        raise click.exceptions.Exit(1)


def _document(given: str) -> Document:
    """The text of a file of this name if there is one, otherwise the words themselves.

    Raises:
        InvalidArgument: it is blank, a folder, or reads like the name of a file that is missing.
        click.UsageError: the file is not UTF-8.
        OSError: the file cannot be read.
    """
    # os.path, which takes what cannot be a name, as a long text, for no file.
    if os.path.isfile(given):
        return read_document(Path(given), Path(given).name)
    if not given.strip():
        raise InvalidArgument("a text is empty; give two texts, or the names of two files")
    if os.path.isdir(given):
        raise InvalidArgument(f"{given} is a folder; give it alone to compare what is in it")
    if given.endswith(".txt"):
        raise InvalidArgument(f"there is no file {given}; give two texts, or two files")
    return Document(_quote(given), given)


def _quote(text: str) -> str:
    return '"' + textwrap.shorten(text, 48, placeholder=" …") + '"'


def _show(
    selection: Selection,
    pairs: PairedVectors,
    whitening: Whitening | None,
    top: int,
    *,
    as_json: bool,
) -> bool:
    """Show what came out; whether every document is in it.

    Raises:
        InvalidArgument: there are no two vectors.
    """
    for failure in pairs.failures:
        note(f"{failure.id}: {failure.code}: {failure.message}")
    if len(pairs.raw) < 2:
        raise InvalidArgument(
            f"a comparison needs two documents with a vector; there are {len(pairs.raw)}"
        )
    tables = similarities(pairs, whitening)
    if as_json:
        print_json(_to_json(pairs, tables, selection.left_out))
    elif len(pairs.raw) == 2:
        _print_pair(pairs, tables)
    else:
        _print_all(pairs, tables, top)
    tell_gaps(selection, pairs)
    if not pairs.centered and not as_json:
        note("Raw only; --center NAME adds the centered cosines.")
    return not pairs.failures


def _print_pair(pairs: PairedVectors, tables: list[Similarity]) -> None:
    rows = [
        [name, vector.id, f"{vector.tokens:,} tokens"]
        for name, vector in zip("AB", pairs.raw, strict=True)
    ]
    print_rows([], rows, names=2)
    columns = ["pool", *tables[0].kinds]
    print_rows(columns, [[table.pool, *_cells(table, 0, 1)] for table in tables], names=1)


def _print_all(pairs: PairedVectors, tables: list[Similarity], top: int) -> None:
    say(f"{len(pairs.raw):,} documents, each with every other")
    kinds = list(tables[0].kinds)
    columns = ["pool"] + [name for kind in kinds for name in (f"{kind} mean", "min", "max")]
    rows = []
    for table in tables:
        row = [table.pool]
        for matrix in table.kinds.values():
            of = spread(matrix)
            row += [_number(of.mean), _number(of.lowest), _number(of.highest)]
        rows.append(row)
    print_rows(columns, rows, names=1)
    whole = tables[-1]
    titles: tuple[Literal["closest", "farthest"], ...] = ("closest", "farthest")
    for which in titles if top else ():
        chosen = extreme_pairs(whole.kinds[kinds[-1]], top, which)
        rows = [[pairs.raw[i].id, pairs.raw[j].id, *_cells(whole, i, j)] for i, j in chosen]
        print_rows([f"{which} ({kinds[-1]}, {whole.pool})", "", *kinds], rows, names=2)


def _cells(table: Similarity, i: int, j: int) -> list[str]:
    return [_number(float(matrix[i, j])) for matrix in table.kinds.values()]


def _number(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.4f}"


def _to_json(pairs: PairedVectors, tables: list[Similarity], left_out: int) -> dict[str, Any]:
    with_matrices = len(pairs.raw) <= _JSON_MATRIX
    return {
        "documents": [
            {"id": vector.id, "text_sha256": vector.text_sha256, "tokens": vector.tokens}
            for vector in pairs.raw
        ],
        "failures": [failure.to_dict() for failure in pairs.failures],
        "left_out": left_out,
        "corpus_mean": pairs.centered[0].stamp.corpus_mean_id if pairs.centered else None,
        "matrices_left_out": not with_matrices,
        "pools": [
            {"pool": table.pool}
            | {
                kind: _matrix_json(table.kinds.get(kind), with_matrix=with_matrices)
                for kind in ("raw", "centered", "whitened")
            }
            for table in tables
        ],
    }


def _matrix_json(matrix: NDArray[np.float64] | None, *, with_matrix: bool) -> dict[str, Any] | None:
    if matrix is None:
        return None
    return asdict(spread(matrix)) | ({"cosines": matrix} if with_matrix else {})
