"""`actvec ray`: vectors and means over the workers of a Ray cluster, without a line of Python."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from actvec.client.cli.commands import Verbs
from actvec.client.cli.options import column_options, json_option, kept_column_options
from actvec.client.cli.paths import PathOrUrl
from actvec.client.documents import Columns, open_documents
from actvec.client.errors import ActvecError
from actvec.client.extras import import_extra
from actvec.ray.jobs import write_mean, write_vectors
from actvec.server.errors import PicklableError, first_line
from actvec.server.program.options import model_options
from actvec.shards.options import given, mean_options, vector_options
from actvec.shards.reporting import report_mean, report_vectors


@click.group(cls=Verbs)
def ray() -> None:
    """Run corpus jobs on the workers of a Ray cluster. No server is needed.

    A model that is a directory must be on every worker.
    """


def _cluster_options(command: Any) -> Any:
    """Options for the cluster, the number of workers, and their model."""
    for option in (
        click.option(
            "--gpus",
            type=click.FloatRange(min=0),
            default=0.0,
            show_default=True,
            metavar="N",
            help="GPUs of each worker; 0 computes on CPUs.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="Workers, each with a model.",
        ),
        click.option(
            "--address",
            metavar="ADDRESS",
            help="The cluster, as ray.init takes it.  [default: RAY_ADDRESS, else this machine]",
        ),
    ):
        command = option(command)
    return model_options("max_layer", "device")(command)


@ray.command
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@vector_options
@click.option(
    "--out",
    type=PathOrUrl(file_okay=False),
    required=True,
    help="The folder for the vectors; every worker reaches it under the same path. Or "
    "s3://BUCKET/PATH or gs://BUCKET/PATH.",
)
@click.option(
    "--center",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The file of a corpus mean to subtract.  [default: none, raw vectors]",
)
@kept_column_options
@_cluster_options
@json_option
def vectors(
    *,
    source: Path,
    asked: dict[str, Any],
    out: str | Path,
    center: Path | None,
    columns: Columns,
    address: str | None,
    workers: int,
    gpus: float,
    as_json: bool,
    **model: Any,
) -> None:
    """Turn the documents of INPUT into vectors, in Parquet files.

    INPUT is what `actvec stream` takes. If the job is interrupted, run the same command again, and
    it continues. If documents fail, errors.jsonl in the folder lists them, and the exit code is 1.
    """
    documents = open_documents(source, None, columns)
    _start(address, workers)
    with _explained():
        made = write_vectors(
            documents,
            out,
            workers=workers,
            gpus=gpus,
            center=None if center is None else str(center.absolute()),
            **asked,
            **_model(gpus, **model),
        )
    text = (
        f"{made.vectors:,} vectors in {out}/vectors, {made.failed:,} documents failed;"
        f" computed now: {made.computed:,}"
    )
    report_vectors(vars(made) | {"out": str(out)}, text, as_json=as_json)


@ray.command
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@mean_options
@click.option(
    "--out",
    type=PathOrUrl(dir_okay=False),
    required=True,
    help="The safetensors file to write, in a folder that every worker reaches; or its URL, "
    "s3://BUCKET/PATH or gs://BUCKET/PATH.",
)
@column_options
@_cluster_options
@json_option
def mean(
    *,
    source: Path,
    asked: dict[str, Any],
    out: str | Path,
    columns: Columns,
    address: str | None,
    workers: int,
    gpus: float,
    as_json: bool,
    **model: Any,
) -> None:
    """Average the states of the documents of INPUT, by distance from the end.

    INPUT is what `actvec stream` takes. If the job is interrupted, run the same command again, and
    it continues. `actvec mean upload` stores the file on a server. The exit code is 1 if documents
    were skipped.
    """
    documents = open_documents(source, None, columns)
    _start(address, workers)
    with _explained():
        made = write_mean(
            documents, out, workers=workers, gpus=gpus, **asked, **_model(gpus, **model)
        )
    text = f"{out}: {made.documents:,} documents of {made.tokens:,} tokens"
    report_mean(made, {"path": str(out)}, text, as_json=as_json)


def _start(address: str | None, workers: int) -> None:
    """Connect to a cluster, or start one on this machine.

    Raises:
        MissingExtra: Ray is not installed.
    """
    library = import_extra("ray", "ray")
    import_extra("ray.data", "ray")
    if not library.is_initialized():
        if address is None and "RAY_ADDRESS" not in os.environ:
            # Ray counts these CPUs, whatever the machine has, and workers wait for those they need.
            cpus = max(os.cpu_count() or 1, workers)
            library.init(num_cpus=cpus, log_to_driver=False, include_dashboard=False)
        else:
            library.init(address=address)


def _model(gpus: float, **model: Any) -> dict[str, Any]:
    """Collect the model's options for `ActivationVectors`."""
    options = given(**model)
    return options if gpus else {**options, "device": "cpu"}


@contextmanager
def _explained() -> Iterator[None]:
    """Report a worker's error without Ray's stack of it.

    Raises:
        ActvecError: a worker refused or failed.
    """
    exceptions = import_extra("ray.exceptions", "ray")
    try:
        yield
    except PicklableError as error:
        raise ActvecError(str(error)) from error
    except exceptions.RayError as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, PicklableError | ActvecError):
            cause = cause.__cause__
        raise ActvecError(first_line(cause)) from error
