"""`actvec verify`: is raw minus centered the pooled mean, as it must be?"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from actvec.client.analysis.verify import (
    DocumentIdentity,
    holds,
    read_lengths,
    to_csv,
    verify_columns,
    verify_vectors,
    worst_error,
)
from actvec.client.cli.commands import Numbers, Verb
from actvec.client.cli.options import Input, json_option, reads_input
from actvec.client.cli.pairs import tell_mean
from actvec.client.cli.paths import AnyPath
from actvec.client.cli.printing import note, print_json, print_rows, say
from actvec.client.cli.server import Connect, talks_to_server
from actvec.client.cli.settings import Asked, vector_options
from actvec.client.errors import ActvecError
from actvec.client.files import write_atomic
from actvec.client.records.means import read_mean
from actvec.client.records.settings import VectorSettings
from actvec.client.records.vectors import Document, Failure


@click.command(cls=Verb)
@reads_input(required=False)
@vector_options(default="long", center="latest")
@click.option(
    "--columns",
    "tables",
    nargs=2,
    metavar="RAW.csv CENTERED.csv",
    type=AnyPath(dir_okay=False),
    help="Check files that `actvec csv` wrote, without a server.",
)
@click.option(
    "--mean",
    "mean_path",
    type=AnyPath(dir_okay=False),
    help="The mean's safetensors file, for --columns.",
)
@click.option(
    "--lengths",
    type=AnyPath(dir_okay=False),
    help="The tokens of each document, vectors_lengths.csv of `actvec csv`, for --columns.",
)
@click.option(
    "--tolerance",
    type=Numbers(min=0),
    default=1e-4,
    help="The largest accepted error, as a fraction of the pooled mean's norm.",
)
@click.option(
    "--csv",
    "csv_path",
    type=AnyPath(dir_okay=False),
    help="Also write the table to this CSV file.",
)
@json_option
@talks_to_server
def verify(
    server: Connect,
    *,
    source: Input,
    asked: Asked[VectorSettings],
    tables: tuple[Path, Path] | None,
    mean_path: Path | None,
    lengths: Path | None,
    tolerance: float,
    csv_path: Path | None,
    as_json: bool,
) -> None:
    """Check centering without the model: raw - centered is the pooled mean, for every document.

    Makes the vectors of INPUT (a folder or file of documents, as for `stream`; default: the sample
    texts), raw and centered, downloads the mean and compares. The exit code is 1 if the identity
    does not hold, or if a document could not be checked.
    """
    if tables is not None:
        source.refuse_columns()
        if mean_path is None or lengths is None or source.path is not None:
            raise click.UsageError("--columns needs --mean and --lengths, and no INPUT")
        mean = read_mean(mean_path.read_bytes())
        pools = asked.settings.pool_names
        documents = list(verify_columns(pools, *tables, mean, read_lengths(lengths)))
        failures: list[Failure] = []
    else:
        documents, failures = _ask(server, source.or_samples(), asked)
        if not documents and not failures:
            raise click.UsageError(
                f"{source.path} holds no document, so there is nothing to verify"
            )
    if csv_path is not None:
        write_atomic(csv_path, to_csv(documents))
    passed = holds(documents, tolerance)
    if as_json:
        shown = {
            "holds": passed,
            "worst": worst_error(documents),
            "documents": [asdict(document) for document in documents],
            "failures": [failure.to_dict() for failure in failures],
        }
        print_json(shown)
    else:
        say(f"raw - centered = pooled mean {_verdict(documents, tolerance)}")
        _print(documents)
        if unchecked := sorted({pool for one in documents for pool in one.unchecked}):
            names = ", ".join(unchecked)
            note(f"{names} was not checked: the server alone knows its weights")
        for failure in failures:
            note(f"{failure.id!a} was not checked: {failure.message}")
    if failures or not passed:
        raise click.exceptions.Exit(1)


def _ask(
    server: Connect, texts: Iterable[Document | Failure], asked: Asked[VectorSettings]
) -> tuple[list[DocumentIdentity], list[Failure]]:
    documents: list[DocumentIdentity] = []
    failures: list[Failure] = []
    mean: NDArray[np.float32] | None = None
    with server.connect() as client:
        settings = asked.of(client)
        for index, text in enumerate(texts):
            if isinstance(text, Failure):
                failures.append(replace(text, index=index))
                continue
            try:
                centered = client.extract(text, settings=settings)
                if mean is None:
                    # From here on by id: `latest` may be another one by now.
                    settings = replace(settings, center=centered.stamp.corpus_mean_id)
                    file = client.download_mean(centered.stamp.corpus_mean_id)
                    mean = file.mean_of(centered.stamp)
                    tell_mean(file.record)
                raw = client.extract(text, settings=replace(settings, center=None))
                documents.append(verify_vectors(raw, centered, mean))
            except ActvecError as error:
                if error.code not in {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL"}:
                    raise
                failures.append(Failure.of(error, text.id, index))
    return documents, failures


def _verdict(documents: list[DocumentIdentity], tolerance: float) -> str:
    worst = worst_error(documents)
    if worst is None:
        return "was NOT checked, because no document has vectors"
    verdict = "holds" if holds(documents, tolerance) else "does NOT hold"
    return (
        f"{verdict}: {len(documents)} documents, the worst error is {worst:.1e} of the pooled"
        f" mean's norm (tolerance {tolerance:g})"
    )


def _print(documents: list[DocumentIdentity]) -> None:
    rows = [
        (
            *(document.id, pool.pool, f"{document.tokens:,}", f"{pool.cosine:.8f}"),
            *(f"{pool.error:.1e}", f"{pool.difference:.4f}", f"{pool.predicted:.4f}"),
        )
        for document in documents
        for pool in document.pools
    ]
    columns = ("document", "pool", "tokens", "cosine", "error", "|raw-centered|", "|pooled mean|")
    print_rows(columns, rows, names=2)
