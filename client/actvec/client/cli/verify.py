"""`actvec verify`: is raw minus centred the pooled mean, as it must be?"""

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import click

from actvec.client.cli.options import Server, check_center, json_option, talks_to_server
from actvec.client.documents import open_documents
from actvec.client.errors import ActvecError
from actvec.client.means import read_mean
from actvec.client.samples import sample_corpus
from actvec.client.vectors import Document, Failure, Mode, Vector
from actvec.client.verify import (
    DocumentIdentity,
    holds,
    read_lengths,
    to_csv,
    verify_columns,
    verify_vectors,
    worst_error,
)
from actvec.client.whole import write_whole


@click.command
@click.argument("source", metavar="[INPUT]", type=click.Path(path_type=Path), required=False)
@click.option(
    "--center",
    default="latest",
    show_default=True,
    callback=check_center,
    help="The mean: latest, a name or an ID.",
)
@click.option(
    "--mode",
    type=click.Choice(["short", "long"]),
    default="long",
    show_default=True,
    help="One pool, or four.",
)
@click.option(
    "--columns",
    nargs=2,
    metavar="RAW.csv CENTRED.csv",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Check files that `actvec csv` wrote, without a server.",
)
@click.option(
    "--mean",
    "mean_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The mean's safetensors file, for --columns.",
)
@click.option(
    "--lengths",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A CSV file of label,tokens, for --columns.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-4,
    show_default=True,
    help="The error that is let pass, as a fraction of the pooled mean's norm.",
)
@click.option(
    "--csv", "csv_path", type=click.Path(path_type=Path), help="Write the table to this file too."
)
@json_option
@talks_to_server
def verify(
    server: Server,
    *,
    source: Path | None,
    center: str,
    mode: Mode,
    columns: tuple[Path, Path] | None,
    mean_path: Path | None,
    lengths: Path | None,
    tolerance: float,
    csv_path: Path | None,
    as_json: bool,
) -> None:
    """Check centring without the model: raw - centred is the pooled mean, for every document.

    Makes the vectors of INPUT (what `actvec stream` takes; without it the sample texts), raw and
    centred, downloads the mean and compares. The exit code is 1 where it does not hold, or where a
    document could not be checked.
    """
    if columns is not None:
        if mean_path is None or lengths is None or source is not None:
            raise click.UsageError("--columns needs --mean and --lengths, and no INPUT")
        mean = read_mean(mean_path.read_bytes())
        documents = list(verify_columns(mode, *columns, mean, read_lengths(lengths)))
        failures: list[Failure] = []
    else:
        documents, failures = _ask(server, source, mode, center)
    if csv_path is not None:
        write_whole(csv_path, to_csv(documents))
    passed = holds(documents, tolerance)
    if as_json:
        shown = {
            "holds": passed,
            "worst": worst_error(documents),
            "documents": [asdict(document) for document in documents],
            "failures": [failure.to_dict() for failure in failures],
        }
        click.echo(json.dumps(shown, indent=2))
    else:
        _print(documents)
        click.echo(f"\nraw - centred = pooled mean {_verdict(documents, tolerance)}")
        for failure in failures:
            click.echo(f"{failure.id!a} was not checked: {failure.message}", err=True)
    if failures or not passed:
        raise click.exceptions.Exit(1)


def _ask(
    server: Server, source: Path | None, mode: Mode, center: str
) -> tuple[list[DocumentIdentity], list[Failure]]:
    texts: Iterable[Document | Failure] = (
        sample_corpus() if source is None else open_documents(source)
    )
    documents: list[DocumentIdentity] = []
    failures: list[Failure] = []
    with server.connect() as client:
        file = client.download_mean(center)
        mean = file.mean
        for index, text in enumerate(texts):
            if isinstance(text, Failure):
                failures.append(replace(text, index=index))
                continue
            try:
                raw: Vector = client.extract(text, mode=mode)
                # By id: `latest` may be another one by now.
                centred = client.extract(text, mode=mode, center=file.record.id)
                documents.append(verify_vectors(raw, centred, mean))
            except ActvecError as error:
                if error.code not in {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL"}:
                    raise
                failures.append(Failure.of(error, text.id, index))
    if not documents and not failures:
        raise click.UsageError(f"{source} holds no document, so nothing can be verified")
    return documents, failures


def _verdict(documents: list[DocumentIdentity], tolerance: float) -> str:
    worst = worst_error(documents)
    if worst is None:
        return "was NOT checked: no document has vectors"
    verdict = "holds" if holds(documents, tolerance) else "does NOT hold"
    return (
        f"{verdict}: {len(documents)} documents, the worst error is {worst:.1e} of the pooled"
        f" mean's norm (tolerance {tolerance:g})"
    )


def _print(documents: list[DocumentIdentity]) -> None:
    width = max([len("document"), *(len(document.id) for document in documents)])
    click.echo(
        f"{'document':<{width}}  {'tokens':>6}  {'pool':<8}  {'cosine':>10}  {'error':>8}"
        f"  {'|raw-centred|':>13}  {'|pooled mean|':>13}"
    )
    for document in documents:
        for pool in document.pools:
            click.echo(
                f"{document.id:<{width}}  {document.tokens:>6}  {pool.pool:<8}"
                f"  {pool.cosine:>10.8f}  {pool.error:>8.1e}  {pool.difference:>13.4f}"
                f"  {pool.predicted:>13.4f}"
            )
