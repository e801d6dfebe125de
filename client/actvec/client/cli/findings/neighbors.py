"""`actvec neighbors`: the nearest documents, raw against centered."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest

import click

from actvec.client.cli.commands import Verb
from actvec.client.cli.findings.folder import reads_vectors, whiten_option
from actvec.client.cli.options import json_option
from actvec.client.cli.printing import print_json, print_rows, say
from actvec.client.cli.server import Connect, talks_to_server
from actvec.client.findings import (
    Agreement,
    InPool,
    NearestDocuments,
    Whitening,
    extract_like,
    neighbor_labels,
)
from actvec.client.findings import neighbors as find_neighbors
from actvec.client.records.vectors import Document
from actvec.client.stored.vectors import StoredVectors


@click.command(cls=Verb)
@reads_vectors(several=False)
@click.argument("document", metavar="[ID]", required=False)
@click.option("--text", help="Find the neighbors of this text; a server makes its vector.")
@click.option(
    "--by",
    metavar="COLUMN",
    help="Instead of neighbors: how often the nearest one has the same label in this column.",
)
@whiten_option
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    help="Show this many neighbors.",
)
@json_option
@talks_to_server
def neighbors(
    server: Connect,
    *,
    vectors: StoredVectors,
    document: str | None,
    text: str | None,
    by: str | None,
    whitening: Whitening | None,
    top: int,
    as_json: bool,
) -> None:
    """Show the nearest documents by cosine, raw and centered side by side.

    FOLDER holds vectors that `stream` made. Give the ID of one of its documents, or a --text; or,
    with --by, see for all documents how often the nearest neighbor has the same label. Centered
    vectors are the raw ones minus the average of FOLDER. Each layer and pool has its own table.
    """
    if sum(given is not None for given in (document, text, by)) != 1:
        raise click.UsageError("give one of ID, --text and --by")
    if by is not None:
        shares = neighbor_labels(vectors, by, whitening)
        if as_json:
            print_json([asdict(found) for found in shares])
        else:
            _print_shares(shares)
    else:
        if document is not None:
            tables = find_neighbors(vectors, document, top, whitening)
        else:
            with server.connect() as client:
                made = extract_like(client, Document("text", text), vectors.stamp)
            tables = find_neighbors(vectors, made, top, whitening)
        if as_json:
            print_json([asdict(found) for found in tables])
        else:
            _print_tables(tables)
    if not as_json:
        by_mean = vectors.stamp.corpus_mean_id
        average = f"minus the average of the {len(vectors):,} documents"
        say(f"centered: {f'by the corpus mean {by_mean}' if by_mean else average}")


def _print_tables(tables: Sequence[InPool[NearestDocuments]]) -> None:
    for found in tables:
        columns = [cell for kind in found.kinds for cell in (kind, "cosine")]
        say(f"layer {found.layer}, pool {found.pool}")
        rows = [
            [
                cell
                for one in row
                for cell in (("", "") if one is None else (one[0], f"{one[1]:.4f}"))
            ]
            for row in zip_longest(*found.kinds.values())
        ]
        print_rows(columns, rows, names=0)


def _print_shares(shares: Sequence[InPool[Agreement]]) -> None:
    kinds = list(shares[0].kinds)
    pools = [found.pool for found in shares]
    first = next(iter(shares[0].kinds.values()))
    say(
        f"Nearest neighbors with the same label, of {first.documents:,} documents"
        f" (by chance: {first.chance:.3f})"
    )
    rows = [
        [found.pool, found.layer, *(f"{found.kinds[kind].share:.3f}" for kind in kinds)]
        # As the tables of other verbs: the layers of a pool together.
        for found in sorted(shares, key=lambda one: pools.index(one.pool))
    ]
    print_rows(["pool", "layer", *kinds], rows, names=2)
