"""`actvec direction`: from labeled documents to a direction per layer and pool."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from actvec.client.analysis.csv_cells import csv_line
from actvec.client.cli.commands import Verb
from actvec.client.cli.findings.folder import by_option, reads_vectors
from actvec.client.cli.options import json_option
from actvec.client.cli.paths import AnyPath, safetensors_option
from actvec.client.cli.printing import note, print_by_layer, print_json, say
from actvec.client.files import write_atomic
from actvec.client.findings import Direction, project, write_direction, write_gguf
from actvec.client.findings import direction as make_direction
from actvec.client.findings.labels import as_text
from actvec.client.stored.vectors import StoredVectors


@click.command(cls=Verb)
@reads_vectors()
@by_option
@click.option(
    "--positive",
    metavar="LABEL",
    help="The label that the direction leads to.  [default: the later of two, alphabetically]",
)
@click.option(
    "--negative",
    metavar="LABEL",
    help="The label that the direction leads from.  [default: all others]",
)
@safetensors_option
@click.option(
    "--gguf",
    type=AnyPath(dir_okay=False),
    help="Also write a control vector for repeng and llama.cpp; needs one pool.",
)
@click.option(
    "--project",
    "scores",
    type=AnyPath(dir_okay=False),
    help="Also write the score of each document to this CSV file.",
)
@json_option
def direction(
    *,
    vectors: StoredVectors,
    by: str,
    positive: str | None,
    negative: str | None,
    out: Path,
    gguf: Path | None,
    scores: Path | None,
    as_json: bool,
) -> None:
    """Write the direction from one label to another, for each layer and pool.

    FOLDER holds vectors that `stream` made, with the column of the labels (`stream --keep`). The
    direction is the mean of the vectors of one label minus the mean of the other, the tensor
    `direction` [layers, pools, width] of --out. The table shows how well held-out documents
    separate along it: AUC, and d' (the distance of the labels in standard deviations).
    """
    found = make_direction(vectors, by, positive, negative)
    # First, since not every direction is a control vector.
    blocks = () if gguf is None else write_gguf(gguf, found)
    write_direction(out, found)
    if scores is not None:
        write_atomic(scores, _scores(vectors, found).encode())
    if as_json:
        print_json(_to_json(vectors, found))
    else:
        _print(vectors, found)
        say(str(out))
    if gguf is not None:
        missing = len(vectors.layers) - len(blocks)
        say(
            f"{gguf}: control vectors for the outputs of {len(blocks):,} blocks"
            + (", without block 0, which the format cannot hold" if missing else ""),
            err=as_json,
        )


def _print(vectors: StoredVectors, found: Direction) -> None:
    ones, others = found.counts
    say(f"{found.positive} ({ones:,} documents) minus {found.negative} ({others:,})")
    norms, cosines = found.norm, found.layer_cosines

    def cells(layer: int, pool: int) -> list[str]:
        numbers = (
            norms[layer, pool],
            *found.spread[::-1, layer, pool],
            cosines[pool, layer, layer - 1] if layer else np.nan,
            found.separation.d_prime[layer, pool],
            found.separation.auc[layer, pool],
        )
        return list(map(_number, numbers))

    columns = ("norm", "spread +", "spread -", "cosine", "d'", "AUC")
    print_by_layer(vectors.layers, vectors.pools, columns, cells)
    say(
        f"spread: of {found.positive} (+) and {found.negative} (-), around their means;"
        " cosine: with the layer before"
    )
    if found.separation.folds:
        say(f"d' and AUC: {found.separation.folds} folds, each held out once")
    else:
        note("No d' and no AUC: to hold documents out takes at least 4 of each label.")


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _scores(vectors: StoredVectors, found: Direction) -> str:
    """A line per document: id, label, and the score of each layer and pool."""
    names = [f"layer {layer} {pool}" for layer in vectors.layers for pool in vectors.pools]
    lines = [csv_line("id", found.by, *names)]
    labels = as_text(vectors.column(found.by))
    for name, label, scores in zip(vectors.ids, labels, project(vectors, found), strict=True):
        lines.append(csv_line(name, label or "", *(f"{one:.6f}" for one in scores.ravel())))
    return "".join(lines)


def _to_json(vectors: StoredVectors, found: Direction) -> dict[str, Any]:
    return {
        "positive": found.positive,
        "negative": found.negative,
        "counts": found.counts,
        "folds": found.separation.folds,
        "layers": vectors.layers,
        "pools": vectors.pools,
        "norm": found.norm,
        "auc": found.separation.auc,
        "d_prime": found.separation.d_prime,
        "spread_positive": found.spread[1],
        "spread_negative": found.spread[0],
        "layer_cosines": found.layer_cosines,
    }
