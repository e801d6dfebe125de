"""`actvec probe`: how well labels can be read from the vectors of each layer and pool."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from actvec.client.cli.commands import Verb
from actvec.client.cli.findings.folder import by_option, reads_vectors, whiten_option
from actvec.client.cli.options import json_option
from actvec.client.cli.paths import AnyPath
from actvec.client.cli.printing import print_by_layer, print_json, say
from actvec.client.cli.progress import show_progress
from actvec.client.extras import import_extra
from actvec.client.files import write_atomic
from actvec.client.findings import Probe, Whitening, probe_figure
from actvec.client.findings import probe as fit_probe
from actvec.client.stored.vectors import StoredVectors


@click.command(cls=Verb)
@reads_vectors()
@by_option
@whiten_option
@click.option(
    "--figure",
    type=AnyPath(dir_okay=False),
    help="Also write a figure of accuracy and AUC by layer to this HTML file.",
)
@click.option(
    "--jobs",
    metavar="N",
    type=int,
    default=1,
    help="Fit in this many processes; -1 for one per core.",
)
@json_option
def probe(
    *,
    vectors: StoredVectors,
    by: str,
    whitening: Whitening | None,
    figure: Path | None,
    jobs: int,
    as_json: bool,
) -> None:
    """Train a linear probe for a label, for each layer and pool.

    FOLDER holds vectors that `stream` made, with the column of the labels (`stream --keep`). The
    probe is scikit-learn's logistic regression. Accuracy and AUC are measured on held-out
    documents, in 5 folds; each fold has its own standardization and regularization.
    """
    if figure is not None:
        # Before anything is computed in vain.
        import_extra("plotly", "findings")
    with show_progress() as progress:
        found = fit_probe(
            vectors,
            by,
            whitening,
            jobs=jobs,
            on_probe=lambda done, total: progress.update(
                done, total, lambda: f"{done:,} of {total:,} probes"
            ),
        )
    if figure is not None:
        write_atomic(figure, probe_figure(found).to_html().encode())
    if as_json:
        print_json(_to_json(found))
        return
    labels = ", ".join(f"{label} ({count:,})" for label, count in found.counts.items())
    say(f"{by}: {labels}; {found.folds} folds")
    print_by_layer(
        found.layers,
        found.pools,
        ("accuracy", "AUC", "C"),
        lambda layer, pool: [
            f"{found.accuracy[layer, pool]:.3f} ± {found.accuracy_spread[layer, pool]:.3f}",
            f"{found.auc[layer, pool]:.3f}",
            f"{found.strength[layer, pool]:g}",
        ],
    )
    say(f"Always guessing the most common label has an accuracy of {found.majority:.3f}.")
    if figure is not None:
        say(str(figure))


def _to_json(found: Probe) -> dict[str, Any]:
    return asdict(found) | {"stamp": found.stamp.to_dict(), "majority": found.majority}
