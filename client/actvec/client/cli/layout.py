"""The options that say how a job stores vectors, wherever it runs."""

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from actvec.client.bulk import MAX_ROWS_PER_FILE, ROWS_PER_FILE, Format, Layout
from actvec.client.bulk.sinks.sink import FILE_DTYPE, Dtype
from actvec.client.cli.commands import Numbers, takes

Command = TypeVar("Command", bound=Callable[..., Any])

save_every_option = click.option(
    "--save-every",
    type=Numbers(min=0),
    metavar="SECONDS",
    default=60.0,
    help="Save an unfinished shard or Parquet file this often, so that a kill costs no more work"
    " than that; to the hub, at most every 600 seconds.",
)


def layout_options(
    default: Format, dtype: str = "--dtype"
) -> Callable[[Command], Callable[..., Any]]:
    """The options of a `Layout`, which a verb takes as `layout`.

    Args:
        default: The format that is taken if none is named.
        dtype: The option for the dtype of the stored numbers. That of a model is `--dtype`.
    """
    return takes(
        "layout",
        _layout,
        click.option(
            "--format",
            "format_",
            type=click.Choice(get_args(Format)),
            default=default,
            help="files: one safetensors file per document, as `actvec extract` writes. shards:"
            " safetensors files of many rows with an index (vectors-00000.safetensors and"
            " .jsonl). parquet: vectors.parquet/part-00000.parquet.",
        ),
        click.option(
            dtype,
            "stored_dtype",
            type=click.Choice(get_args(Dtype)),
            default=FILE_DTYPE,
            help="The dtype of the stored numbers.",
        ),
        click.option(
            "--rows-per-file",
            type=click.IntRange(min=1, max=MAX_ROWS_PER_FILE),
            metavar="N",
            help="Vectors per shard or Parquet file; one file is held in memory.  [default: "
            f"{ROWS_PER_FILE}, or as many of them as make up 1 GiB]",
        ),
    )


def _layout(format_: Format, stored_dtype: Dtype, rows_per_file: int | None) -> Layout:
    if format_ == "files" and rows_per_file is not None:
        raise click.UsageError("--rows-per-file is for --format shards and --format parquet")
    return Layout(format_, stored_dtype, rows_per_file)
