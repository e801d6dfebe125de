"""`actvec mean`: make, look at and move corpus means."""

import json
from pathlib import Path

import click

from actvec.client.cli.options import (
    Server,
    bos_option,
    column_options,
    json_option,
    shard_option,
    talks_to_server,
)
from actvec.client.cli.progress import show_mean_progress
from actvec.client.documents import Columns, Shard, open_documents
from actvec.client.errors import InvalidArgument
from actvec.client.means import CorpusMean, MeanProgress
from actvec.client.vectors import Truncation
from actvec.client.whole import write_whole

_timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds without a piece of the file after which it is given up.",
)


@click.group
def mean() -> None:
    """Make, look at and move corpus means."""


@mean.command
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Names the mean: letters, digits, '.', '_' and '-'.")
@shard_option
@column_options
@click.option("--job", help="Names the job on the server.  [default: the mean's name]")
@click.option(
    "--truncation",
    type=click.Choice(["error", "start", "end"]),
    default="error",
    show_default=True,
    help="What happens to a text over the model's context: it is left out, or its start or its end"
    " is kept.",
)
@bos_option
@click.option("--variance", is_flag=True, help="Keep second moments too, to standardise by.")
@click.option(
    "--take-over",
    is_flag=True,
    help="Take the job from another client that has been silent for half a minute.",
)
@click.option(
    "--retry-for",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Seconds without progress after which a broken connection is given up.",
)
@json_option
@talks_to_server
def compute(
    server: Server,
    *,
    source: Path,
    name: str,
    shard: Shard | None,
    columns: Columns,
    job: str | None,
    truncation: Truncation,
    bos: bool | None,
    variance: bool,
    take_over: bool,
    retry_for: float,
    as_json: bool,
) -> None:
    """Average the states of the documents of INPUT, by distance from the end.

    INPUT is what `actvec stream` takes. The server makes what it has durable every few seconds;
    run the same command again after a crash of either side and it goes on from there, each document
    counted exactly once. Documents that are left out are counted by reason, and the exit code is 1.
    """
    documents = open_documents(source, shard, columns)
    durable = 0
    try:
        with (
            server.connect(retry_for=retry_for) as client,
            show_mean_progress(documents.count) as display,
        ):

            def update(progress: MeanProgress) -> None:
                nonlocal durable
                durable = progress.committed
                display.update(progress)

            made = client.corpus_mean(
                documents,
                job=job or name,
                name=name,
                truncation=truncation,
                prepend_bos=bos,
                variance=variance,
                take_over=take_over,
                on_progress=update,
            )
    except BaseException:
        if durable:
            advice = "" if documents.size is None else "; the same command goes on after them"
            click.echo(f"Stopped: {durable:,} documents are durable{advice}", err=True)
        raise
    _show(made, as_json=as_json)
    if made.skipped:
        raise click.exceptions.Exit(1)


@mean.command(name="list")
@click.option("--all-models", is_flag=True, help="Also means of other models and layers.")
@json_option
@talks_to_server
def list_command(server: Server, *, all_models: bool, as_json: bool) -> None:
    """List the server's means, newest first."""
    with server.connect() as client:
        means = client.list_means(all_models=all_models)
    if as_json:
        click.echo(json.dumps([one.to_dict() for one in means], indent=2))
        return
    if not means:
        click.echo("no means; make one with `actvec mean compute INPUT --name NAME`", err=True)
        return
    width = max(len(one.name) for one in means)
    click.echo(f"{'id':<16}  {'name':<{width}}  {'documents':>9}  {'tokens':>11}  finished (UTC)")
    for one in means:
        documents = f"{one.documents:,}" if one.has_counts else "?"
        tokens = f"{one.tokens:,}" if one.has_counts else "?"
        click.echo(
            f"{one.id:<16}  {one.name:<{width}}  {documents:>9}  {tokens:>11}"
            f"  {one.created_at:%Y-%m-%d %H:%M}"
        )


@mean.command
@click.argument("name")
@json_option
@talks_to_server
def show(server: Server, *, name: str, as_json: bool) -> None:
    """Show one mean's record. NAME is an id, a name, or latest."""
    with server.connect() as client:
        found = client.get_mean(name)
    _show(found, as_json=as_json)


@mean.command
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The safetensors file to write.",
)
@_timeout_option
@json_option
@talks_to_server
def download(server: Server, *, name: str, out: Path, timeout: float, as_json: bool) -> None:
    """Write a mean's safetensors file. NAME is an id, a name, or latest."""
    with server.connect(timeout=timeout) as client:
        file = client.download_mean(name)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, file.content)
    if as_json:
        click.echo(json.dumps(file.record.to_dict() | {"path": str(out)}, indent=2))
        return
    click.echo(
        f"{out}: corpus_mean [{file.record.d_model}, {file.record.max_tokens}] float32,"
        f" sha256 {file.record.sha256}"
    )


@mean.command
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", required=True, help="Names the mean on the server.")
@_timeout_option
@json_option
@talks_to_server
def upload(server: Server, *, path: Path, name: str, timeout: float, as_json: bool) -> None:
    """Store a mean's safetensors file, of this server's or made elsewhere."""
    content = path.read_bytes()
    with server.connect(timeout=timeout) as client:
        try:
            stored = client.upload_mean(content, name=name)
        except InvalidArgument as error:
            raise InvalidArgument(f"{path}: {error}", field=error.field) from error
    _show(stored, as_json=as_json)


@mean.command
@click.argument("means", metavar="NAME...", nargs=-1, required=True)
@click.option("--name", required=True, help="Names the merged mean.")
@json_option
@talks_to_server
def merge(server: Server, *, means: tuple[str, ...], name: str, as_json: bool) -> None:
    """Merge means of documents that do not overlap, exactly. NAME is an id or a name."""
    with server.connect() as client:
        merged = client.merge_means(means, name=name)
    _show(merged, as_json=as_json)


@mean.command
@click.argument("name")
@json_option
@talks_to_server
def delete(server: Server, *, name: str, as_json: bool) -> None:
    """Remove a mean. NAME is an id or a name."""
    with server.connect() as client:
        removed = client.delete_mean(name)
    if as_json:
        click.echo(json.dumps(removed.to_dict(), indent=2))
        return
    click.echo(f"removed {removed.id} ({removed.name})")


def _show(one: CorpusMean, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(one.to_dict(), indent=2))
        return
    rows = [
        ("mean", f"{one.id} ({one.name})"),
        ("sha256", f"{one.sha256}, {one.size_bytes:,} bytes"),
        ("finished", f"{one.created_at:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    if one.model is None:
        rows.append(("model", "not known; made elsewhere"))
    else:
        layers = ", ".join(map(str, one.model.layers))
        rows.append(("model", f"{one.model.model} ({one.model.revision}), {one.model.dtype}"))
        rows.append(("layers", f"{layers} ({one.model.hook})"))
        rows.append(("BOS", "first" if one.prepend_bos else "none"))
    if one.has_counts:
        rows.append(("documents", f"{one.documents:,} of {one.tokens:,} tokens"))
    kept = " with second moments" if one.has_variance else ""
    rows.append(("positions", f"{one.max_tokens:,} from the end, width {one.d_model:,}{kept}"))
    rows += [
        (
            "skipped",
            f"{skip.documents:,} {skip.reason}, first {skip.first_id!a}: {skip.first_message}",
        )
        for skip in one.skipped
    ]
    for label, value in rows:
        click.echo(f"{label:<9}  {value}")
