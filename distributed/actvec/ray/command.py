"""`actvec ray`: vectors and means over the workers of a Ray cluster, without a line of Python."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from actvec.client.cli.commands import VECTORS, Numbers, Verbs, grouped, takes
from actvec.client.cli.options import Input, json_option, reads_input
from actvec.client.cli.paths import AnyPath
from actvec.client.cli.settings import own_mean_options, own_vector_options
from actvec.client.errors import ActvecError
from actvec.client.extras import import_extra
from actvec.client.records.settings import MeanSettings, StateSettings, VectorSettings
from actvec.ray.jobs import write_mean, write_vectors
from actvec.server.config import ModelOptions
from actvec.server.errors import PicklableError, first_line
from actvec.server.program.options import model_options
from actvec.shards.reporting import report_mean, report_vectors


@click.group(cls=Verbs)
def ray() -> None:
    """Run corpus jobs on the workers of a Ray cluster. No server is needed.

    A model that is a directory must be on every worker.
    """


@dataclass(frozen=True)
class Cluster:
    """A cluster, and its workers.

    Attributes:
        address: As `ray.init` takes it; None for the one of the environment, or this machine.
        workers: Workers, each with a model.
        gpus: GPUs of each.
        model: Their model: the options that differ from the defaults.
    """

    address: str | None
    workers: int
    gpus: float
    model: dict[str, Any]

    @contextmanager
    def connected(self) -> Iterator[dict[str, Any]]:
        """Connect to the cluster, or start one on this machine; yields what a job takes of it.

        A worker's error is reported without Ray's stack of it.

        Raises:
            MissingExtra: Ray is not installed.
            ActvecError: a worker refused or failed.
        """
        library = import_extra("ray", "ray")
        import_extra("ray.data", "ray")
        exceptions = import_extra("ray.exceptions", "ray")
        if not library.is_initialized():
            if self.address is None and "RAY_ADDRESS" not in os.environ:
                # Ray counts these CPUs, whatever the machine has, and workers wait for theirs.
                cpus = max(os.cpu_count() or 1, self.workers)
                library.init(num_cpus=cpus, log_to_driver=False, include_dashboard=False)
            else:
                library.init(address=self.address)
        try:
            yield {"workers": self.workers, "gpus": self.gpus, **self.model}
        except PicklableError as error:
            raise ActvecError(str(error)) from error
        except exceptions.RayError as error:
            cause: BaseException = error
            while cause.__cause__ is not None and not isinstance(
                cause, PicklableError | ActvecError
            ):
                cause = cause.__cause__
            raise ActvecError(first_line(cause)) from error


def _cluster(address: str | None, workers: int, gpus: float, **model: Any) -> Cluster:
    given = {name: value for name, value in model.items() if value != getattr(ModelOptions, name)}
    return Cluster(address, workers, gpus, given if gpus else {**given, "device": "cpu"})


_cluster_options = takes(
    "cluster",
    _cluster,
    model_options("max_layer", "device"),
    click.option(
        "--address",
        metavar="ADDRESS",
        help="The cluster, as ray.init takes it.  [default: RAY_ADDRESS, else this machine]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=1,
        metavar="N",
        help="Workers, each with a model.",
    ),
    click.option(
        "--gpus",
        type=Numbers(min=0),
        default=0.0,
        metavar="N",
        help="GPUs of each worker; 0 computes on CPUs.",
    ),
)


def _states(settings: StateSettings) -> dict[str, Any]:
    """What a worker takes of settings: its model has the layers and the hook."""
    names = {field.name for field in fields(StateSettings)} - {"layers", "hook"}
    return {name: getattr(settings, name) for name in sorted(names)}


@ray.command
@reads_input(keep=True)
@own_vector_options
@click.option(
    "--out",
    type=AnyPath(url_okay=True, file_okay=False),
    required=True,
    help="The folder for the vectors; every worker reaches it under the same path. Or "
    "s3://BUCKET/PATH or gs://BUCKET/PATH.",
)
@grouped(
    VECTORS,
    "--center",
    metavar="FILE",
    type=AnyPath(exists=True, dir_okay=False),
    help="The file of a corpus mean to subtract.  [default: none, raw vectors]",
)
@_cluster_options
@json_option
def vectors(
    *,
    source: Input,
    settings: VectorSettings,
    out: str | Path,
    center: Path | None,
    cluster: Cluster,
    as_json: bool,
) -> None:
    """Turn the documents of INPUT into vectors, in Parquet files.

    INPUT is what `actvec stream` takes. If the job is interrupted, run the same command again, and
    it continues. If documents fail, errors.jsonl in the folder lists them, and the exit code is 1.
    """
    documents = source.open()
    with cluster.connected() as workers:
        made = write_vectors(
            documents,
            out,
            mode=settings.mode,
            pools=settings.pools,
            center=None if center is None else str(center.absolute()),
            **_states(settings),
            **workers,
        )
    text = (
        f"{made.vectors:,} vectors in {out}/vectors, {made.failed:,} documents failed;"
        f" computed now: {made.computed:,}"
    )
    report_vectors(vars(made) | {"out": str(out)}, text, as_json=as_json)


@ray.command
@reads_input()
@own_mean_options
@click.option(
    "--out",
    type=AnyPath(url_okay=True, dir_okay=False),
    required=True,
    help="The safetensors file to write, in a folder that every worker reaches; or its URL, "
    "s3://BUCKET/PATH or gs://BUCKET/PATH.",
)
@_cluster_options
@json_option
def mean(
    *,
    source: Input,
    settings: MeanSettings,
    out: str | Path,
    cluster: Cluster,
    as_json: bool,
) -> None:
    """Average the states of the documents of INPUT, by distance from the end.

    INPUT is what `actvec stream` takes. If the job is interrupted, run the same command again, and
    it continues. `actvec mean upload` stores the file on a server. The exit code is 1 if documents
    were skipped.
    """
    documents = source.open()
    with cluster.connected() as workers:
        made = write_mean(
            documents,
            out,
            name=settings.name,
            variance=settings.variance,
            **_states(settings),
            **workers,
        )
    text = f"{out}: {made.documents:,} documents of {made.tokens:,} tokens"
    report_mean(made, {"path": str(out)}, text, as_json=as_json)
