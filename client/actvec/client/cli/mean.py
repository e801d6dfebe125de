"""`actvec mean`: make, look at and move corpus means."""

from pathlib import Path

import click

from actvec.client.cli.commands import Verbs
from actvec.client.cli.options import (
    Input,
    json_option,
    reads_input,
    retry_for_option,
    timeout_option,
)
from actvec.client.cli.pairs import warn_of_few
from actvec.client.cli.paths import AnyPath, safetensors_option
from actvec.client.cli.printing import fact_lines, note, print_json, print_result, say
from actvec.client.cli.progress import mean_words, show_progress
from actvec.client.cli.server import Connect, talks_to_server
from actvec.client.cli.settings import Asked, mean_options
from actvec.client.documents.reading import FollowedDocuments
from actvec.client.errors import InvalidArgument
from actvec.client.files import write_atomic
from actvec.client.records.means import CorpusMean, MeanProgress, describe_layers
from actvec.client.records.settings import MeanSettings

_timeout_option = timeout_option("Give up a transfer in which no byte moves for this long.")


@click.group(cls=Verbs)
def mean() -> None:
    """Compute, show and move corpus means."""


@mean.command
@reads_input(shard=True)
@mean_options
@retry_for_option
@json_option
@talks_to_server
def compute(
    server: Connect,
    *,
    source: Input,
    asked: Asked[MeanSettings],
    retry_for: float,
    as_json: bool,
) -> None:
    """Average the states of the documents of INPUT, by distance from the end.

    INPUT is a folder or file of documents, as for `actvec stream`. The server commits its sums
    every few seconds. After a crash of either side, run the same command again: it continues from
    the last commit, and counts each document exactly once. Skipped documents are counted by reason,
    and the exit code is then 1.
    """
    documents = source.open()
    followed = FollowedDocuments(documents)
    resumed = 0
    durable: int | None = None
    try:
        with (
            server.connect(retry_for=retry_for) as client,
            show_progress() as display,
        ):

            def update(progress: MeanProgress) -> None:
                nonlocal durable, resumed
                # The first time, it is what an earlier run has left.
                if durable is None and progress.committed:
                    resumed = progress.committed
                    note(f"resuming after document {progress.committed:,}")
                durable = progress.committed
                done = progress.documents + progress.skipped
                reading = followed.reading(done, resumed)
                display.update(
                    reading.done_bytes, reading.input_bytes, lambda: mean_words(progress, reading)
                )

            made = client.corpus_mean(followed, on_progress=update, **vars(asked.of(client)))
    except BaseException:
        if durable:
            advice = "" if documents.size is None else "; the same command continues after them"
            note(f"Stopped: {durable:,} documents are durable{advice}")
        raise
    _show_mean(made, as_json=as_json)
    warn_of_few(made)
    if made.skipped:
        raise click.exceptions.Exit(1)


@mean.command(name="list")
@click.option("--all-models", is_flag=True, help="Show means of other models and layers too.")
@json_option
@talks_to_server
def list_command(server: Connect, *, all_models: bool, as_json: bool) -> None:
    """List the server's means, newest first."""
    with server.connect() as client:
        means = client.list_means(all_models=all_models)
    if as_json:
        print_json([one.to_dict() for one in means])
        return
    if not means:
        note("no means; make one with `actvec mean compute INPUT --name NAME`")
        return
    width = max(len(one.name) for one in means)
    say(f"{'id':<16}  {'name':<{width}}  {'documents':>9}  {'tokens':>11}  finished (UTC)")
    for one in means:
        documents = f"{one.documents:,}" if one.has_counts else "?"
        tokens = f"{one.tokens:,}" if one.has_counts else "?"
        say(
            f"{one.id:<16}  {one.name:<{width}}  {documents:>9}  {tokens:>11}"
            f"  {one.created_at:%Y-%m-%d %H:%M}"
        )


@mean.command
@click.argument("name")
@json_option
@talks_to_server
def show(server: Connect, *, name: str, as_json: bool) -> None:
    """Show the record of a mean. NAME is an id, a name, or latest."""
    with server.connect() as client:
        found = client.get_mean(name)
    _show_mean(found, as_json=as_json)


@mean.command
@click.argument("name")
@safetensors_option
@_timeout_option
@json_option
@talks_to_server
def download(server: Connect, *, name: str, out: Path, timeout: float, as_json: bool) -> None:
    """Download a mean to a safetensors file. NAME is an id, a name, or latest."""
    with server.connect(timeout=timeout) as client:
        file = client.download_mean(name)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, file.content)
    print_result(
        file.record.to_dict() | {"path": str(out)},
        f"{out}: corpus_mean [{file.record.d_model}, {file.record.max_tokens}] float32,"
        f" sha256 {file.record.sha256}",
        as_json=as_json,
    )


@mean.command
@click.argument("path", metavar="FILE", type=AnyPath(dir_okay=False))
@click.option("--name", required=True, help="The mean's name on the server.")
@_timeout_option
@json_option
@talks_to_server
def upload(server: Connect, *, path: Path, name: str, timeout: float, as_json: bool) -> None:
    """Store a mean from a safetensors FILE, downloaded from a server or made elsewhere."""
    content = path.read_bytes()
    with server.connect(timeout=timeout) as client:
        try:
            stored = client.upload_mean(content, name=name)
        except InvalidArgument as error:
            raise InvalidArgument(f"{path}: {error}", field=error.field) from error
    _show_mean(stored, as_json=as_json)


@mean.command
@click.argument("means", metavar="NAME...", nargs=-1, required=True)
@click.option("--name", required=True, help="The merged mean's name.")
@json_option
@talks_to_server
def merge(server: Connect, *, means: tuple[str, ...], name: str, as_json: bool) -> None:
    """Merge means of different documents into one, exactly. NAME is an id or a name."""
    with server.connect() as client:
        merged = client.merge_means(means, name=name)
    _show_mean(merged, as_json=as_json)


@mean.command
@click.argument("name")
@json_option
@talks_to_server
def delete(server: Connect, *, name: str, as_json: bool) -> None:
    """Remove a mean. NAME is an id or a name."""
    with server.connect() as client:
        removed = client.delete_mean(name)
    print_result(removed.to_dict(), f"removed {removed.id} ({removed.name})", as_json=as_json)


def _show_mean(one: CorpusMean, *, as_json: bool) -> None:
    rows = [
        ("mean", f"{one.id} ({one.name})"),
        ("sha256", f"{one.sha256}, {one.size_bytes:,} bytes"),
        ("finished", f"{one.created_at:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    if one.model is None:
        rows.append(("model", "unknown; another tool made this mean"))
    else:
        rows.append(("model", f"{one.model.model} ({one.model.revision}), {one.model.dtype}"))
        rows.append(("layers", describe_layers(one.model).removeprefix("layers ")))
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
    print_result(one.to_dict(), *fact_lines(rows), as_json=as_json)
