"""Options that several verbs have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from actvec.client.cli.commands import INPUT, grouped, wrap
from actvec.client.documents import Columns, Shard, read_text
from actvec.client.errors import InvalidArgument
from actvec.client.records.vectors import Document

Command = TypeVar("Command", bound=Callable[..., Any])

retry_for_option = click.option(
    "--retry-for",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Give up a broken connection after this long without progress.",
)

limit_option = grouped(
    INPUT,
    "--limit",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Take at most this many documents of INPUT, and report how many were skipped.",
)


class _ShardType(click.ParamType[Shard]):
    """`I/N`."""

    name = "shard"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Shard:
        """The shard that a text names."""
        try:
            return value if isinstance(value, Shard) else Shard.parse(value)
        except InvalidArgument as error:
            self.fail(str(error), param, ctx)


shard_option = grouped(
    INPUT,
    "--shard",
    metavar="I/N",
    type=_ShardType(),
    help=(
        "Process only part I of N of INPUT, so that N machines can share the work. A "
        "part is every N-th document; together the parts hold each document once."
    ),
)


def read_document(path: Path, document_id: str) -> Document:
    """Read a file as one document.

    Raises:
        click.UsageError: it is not UTF-8.
        OSError: it cannot be read.
    """
    try:
        return Document(document_id, read_text(path))
    except ValueError as error:
        raise click.UsageError(f"{path}: {error}") from None


def column_options(command: Command) -> Callable[..., Any]:
    """`--column` and `--id-column`, which a verb takes as `columns`."""

    def with_columns(
        *args: Any, column: str, id_column: str, keep: tuple[str, ...] = (), **kwargs: Any
    ) -> Any:
        return command(*args, columns=Columns(column, id_column, keep), **kwargs)

    columns = (
        ("column", "a document: its text, the messages of a chat, or token ids", "text"),
        ("id-column", "the id of a document", "id"),
    )
    options = [
        grouped(
            INPUT,
            f"--{name}",
            metavar="NAME",
            default=default,
            show_default=True,
            help=f"The field or column of INPUT that holds {holds}.",
        )
        for name, holds, default in columns
    ]
    return wrap(with_columns, command, options)


def _names(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = (name.strip() for name in (value or "").split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def kept_column_options(command: Command) -> Callable[..., Any]:
    """As `column_options`, and `--keep`."""
    return grouped(
        INPUT,
        "--keep",
        metavar="NAME,...",
        callback=_names,
        help=(
            "More fields or columns of INPUT to keep with each vector, for example label,url: "
            "strings, numbers, booleans or dates."
        ),
    )(column_options(command))


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON on standard output, for programs."
)


def timeout_option(text: str) -> Callable[[Command], Command]:
    """`--timeout`, with a text for the help."""
    return click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        help=text,
    )
