"""`actvec whiten`: fits a whitening to a folder of vectors."""

from pathlib import Path
from typing import get_args

import click

from actvec.client.cli.commands import Numbers, Verb
from actvec.client.cli.findings.folder import reads_vectors
from actvec.client.cli.paths import safetensors_option
from actvec.client.cli.printing import print_by_layer, say
from actvec.client.findings import Method, write_whitening
from actvec.client.findings import whiten as fit
from actvec.client.stored.vectors import StoredVectors


@click.command(cls=Verb)
@reads_vectors()
@safetensors_option
@click.option(
    "--method",
    type=click.Choice(get_args(Method)),
    default="pca",
    help="pca: the new dimensions are the principal components. zca: they are the old ones, changed"
    " as little as possible.",
)
@click.option(
    "--shrinkage",
    type=Numbers(0, 1),
    help="Mix this share of a multiple of the identity into the covariance.  [default: Ledoit"
    " and Wolf's estimate, for each layer and pool]",
)
@click.option(
    "--components",
    type=click.IntRange(min=1),
    help="For pca: take this many of the largest components.  [default: all]",
)
def whiten(
    *,
    vectors: StoredVectors,
    out: Path,
    method: Method,
    shrinkage: float | None,
    components: int | None,
) -> None:
    """Fit a whitening to the vectors of FOLDER, for each layer and pool.

    Whitened dimensions are uncorrelated and have variance 1, so that a few large ones no longer
    decide every cosine. A whitened vector is (vector - mean) @ matrix; the file holds both, and the
    stamp. The verbs `neighbors`, `probe` and `similarity` take the file as --whiten. A matrix has
    D x D numbers, or D x --components: name the --layers and --pools that you need.
    """
    fitted = fit(vectors, method, shrinkage=shrinkage, components=components)
    write_whitening(out, fitted)
    print_by_layer(
        vectors.layers,
        vectors.pools,
        ("shrinkage",),
        lambda layer, pool: [f"{fitted.shrinkage[layer, pool]:.4f}"],
    )
    width, kept = fitted.matrix.shape[-2:]
    say(f"{out}: {method} of {len(vectors):,} documents, {width:,} to {kept:,} dimensions")
