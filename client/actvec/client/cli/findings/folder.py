"""The folder of vectors that a verb reads, and which part of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from actvec.client.cli.commands import takes
from actvec.client.cli.paths import AnyPath
from actvec.client.cli.settings import Layers, split_pools
from actvec.client.findings import read_whitening
from actvec.client.stored.loading import load
from actvec.client.stored.vectors import StoredVectors

Command = TypeVar("Command", bound=Callable[..., Any])


def reads_vectors(*, several: bool = True) -> Callable[[Command], Callable[..., Any]]:
    """`FOLDER`, `--layers` and `--pools`, which a verb takes as `vectors`.

    Args:
        several: Whether several folders that belong together may be given.
    """

    def read(
        folders: tuple[Path, ...] | Path, layers: tuple[int, ...] | str, pools: tuple[str, ...]
    ) -> StoredVectors:
        paths = folders if isinstance(folders, tuple) else (folders,)
        return load(*paths).pick(layers if isinstance(layers, tuple) else None, pools or None)

    return takes(
        "vectors",
        read,
        click.argument(
            "folders",
            metavar="FOLDER..." if several else "FOLDER",
            nargs=-1 if several else 1,
            required=True,
            type=AnyPath(),
        ),
        click.option(
            "--layers",
            metavar="8,12|0-23|all",
            type=Layers(),
            default="all",
            help="Use these layers of the vectors.",
        ),
        click.option(
            "--pools",
            metavar="POOL,...",
            callback=split_pools,
            help="Use these pools of the vectors.  [default: all]",
        ),
    )


def _whitening(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Any:
    return None if value is None else read_whitening(value)


whiten_option = click.option(
    "--whiten",
    "whitening",
    metavar="FILE",
    type=AnyPath(dir_okay=False),
    callback=_whitening,
    help="Also whiten the vectors, by a file that `actvec whiten` wrote.",
)

by_option = click.option(
    "--by",
    metavar="COLUMN",
    required=True,
    help="The column that holds the label of each document.",
)
