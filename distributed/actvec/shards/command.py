"""`actvec local`: a corpus, or a shard of it, with a model in this process, for batch systems."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from actvec.client.bulk.layout import Layout
from actvec.client.bulk.remote import is_remote, read_file
from actvec.client.cli.commands import VECTORS, Verbs, grouped, takes
from actvec.client.cli.layout import layout_options, save_every_option
from actvec.client.cli.options import Input, json_option, reads_input
from actvec.client.cli.paths import URLS, AnyPath
from actvec.client.cli.settings import own_mean_options, own_vector_options
from actvec.client.documents import DocumentSource, Shard
from actvec.client.errors import ActvecError
from actvec.client.records.settings import MeanSettings, VectorSettings
from actvec.server.config import ModelOptions
from actvec.server.errors import PicklableError
from actvec.server.program.options import model_options
from actvec.shards.reporting import report_mean, report_vectors

if TYPE_CHECKING:
    from actvec.shards.host import ModelHost


@click.group(cls=Verbs)
def local() -> None:
    """Compute with a model in this process, without a server: one task of a batch system.

    Each of N tasks computes one shard of the corpus. A killed task resumes when it runs
    again, and a finished one computes nothing.
    """


_model_options = takes("model", ModelOptions, model_options("max_layer"))


@local.command
@reads_input(shard=True, keep=True)
@own_vector_options
@click.option(
    "--out",
    type=AnyPath(url_okay=True, file_okay=False),
    required=True,
    help="The folder for the vectors of all shards; each has a folder of its own in it. For shards "
    f"and parquet also {URLS}.",
)
@layout_options("shards", "--vector-dtype")
@save_every_option
@grouped(
    VECTORS,
    "--center",
    metavar="FILE",
    type=AnyPath(url_okay=True, exists=True, dir_okay=False),
    help="The file of a corpus mean to subtract, or its URL.  [default: none, raw vectors]",
)
@_model_options
@json_option
def vectors(
    *,
    source: Input,
    settings: VectorSettings,
    out: str | Path,
    layout: Layout,
    save_every: float,
    center: str | Path | None,
    model: ModelOptions,
    as_json: bool,
) -> None:
    """Turn a shard of INPUT into vectors, in OUT/I-of-N.

    INPUT and the files are those of `actvec stream`. If documents fail, errors.jsonl in the folder
    lists them, and the exit code is 1.
    """
    documents, folder = _open_shard(source, out)
    with _loaded(model) as host:
        from actvec.shards.vectors import write_vectors  # noqa: PLC0415 - torch, as in `_loaded`

        if center is not None:
            settings = replace(settings, center=host.add_mean("mean", _content(center)))
        made = write_vectors(host, documents, folder, settings, layout, save_every=save_every)
    report = {"vectors": made.vectors, "failed": made.failed, "folder": str(folder)}
    text = f"{made.vectors:,} vectors in {folder}; {made.failed:,} documents failed"
    report_vectors(report, text, as_json=as_json)


@local.command
@reads_input(shard=True)
@own_mean_options
@click.option(
    "--out",
    type=AnyPath(url_okay=True, file_okay=False),
    required=True,
    help=f"The folder for the sums of all shards, which `actvec local merge` takes; or {URLS}.",
)
@_model_options
@json_option
def mean(
    *,
    source: Input,
    settings: MeanSettings,
    out: str | Path,
    model: ModelOptions,
    as_json: bool,
) -> None:
    """Sum the states of a shard of INPUT by distance from the end, in OUT/I-of-N.

    The sums are committed every few seconds. The exit code is 1 if documents were skipped.
    """
    documents, folder = _open_shard(source, out)
    with _loaded(model) as host:
        from actvec.shards.folders import sum_shard  # noqa: PLC0415 - torch, as in `_loaded`
        from actvec.shards.places import opened  # noqa: PLC0415 - as above

        with opened(folder) as place:
            record = sum_shard(host, documents, settings, place)
    text = f"{record.documents:,} documents of {record.tokens:,} tokens in {folder}"
    report_mean(record, {"folder": str(folder)}, text, as_json=as_json)


@local.command
@click.argument("folder", metavar="OUT", type=AnyPath(url_okay=True, exists=True, file_okay=False))
@click.option("--name", required=True, help="The name that was given to `actvec local mean`.")
@click.option(
    "--to",
    type=AnyPath(url_okay=True, dir_okay=False),
    required=True,
    help="The safetensors file to write, or its URL. `actvec mean upload` stores it on a server.",
)
@json_option
def merge(*, folder: str | Path, name: str, to: str | Path, as_json: bool) -> None:
    """Merge the sums of all shards in OUT into one mean, exactly.

    A shard that is missing or was cut short is an error. The exit code is 1 if documents were
    skipped.
    """
    with _explained():
        from actvec.shards.folders import merge_shards  # noqa: PLC0415 - torch, as in `_loaded`

        record = merge_shards(folder, name, to)
    text = f"{to}: {record.documents:,} documents of {record.tokens:,} tokens"
    report_mean(record, {"path": str(to)}, text, as_json=as_json)


def _open_shard(source: Input, out: str | Path) -> tuple[DocumentSource, str | Path]:
    """The documents of a shard, and its folder in OUT."""
    shard = source.shard or Shard(1, 1)
    name = str(shard).replace("/", "-of-")
    folder = f"{str(out).rstrip('/')}/{name}" if is_remote(out) else Path(out, name)
    return replace(source, shard=shard).open(), folder


def _content(file: str | Path) -> bytes:
    return read_file(str(file), "center") if is_remote(file) else Path(file).read_bytes()


@contextmanager
def _loaded(model: ModelOptions) -> Iterator["ModelHost"]:
    """The model, with a folder for the mean that it centers by."""
    from actvec.shards.host import ModelHost  # noqa: PLC0415 - torch: `--help` needs none

    with _explained(), TemporaryDirectory(prefix="actvec-") as data:
        yield ModelHost.load(model, Path(data))


@contextmanager
def _explained() -> Iterator[None]:
    """Errors of the server's side as this program's.

    Raises:
        ActvecError: the model refused or failed.
    """
    try:
        yield
    except PicklableError as error:
        raise ActvecError(str(error)) from error
