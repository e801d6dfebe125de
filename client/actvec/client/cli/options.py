"""Options that several verbs have, and their INPUT."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from actvec.client.cli.commands import INPUT, Numbers, grouped, takes
from actvec.client.cli.paths import AnyPath
from actvec.client.documents import Columns, DocumentSource, Shard, open_documents, read_text
from actvec.client.errors import InvalidArgument
from actvec.client.records.vectors import Document, Failure
from actvec.client.samples import sample_corpus

Command = TypeVar("Command", bound=Callable[..., Any])

retry_for_option = click.option(
    "--retry-for",
    metavar="SECONDS",
    type=Numbers(min=0),
    default=300.0,
    help="Give up a broken connection after this long without progress.",
)

limit_option = grouped(
    INPUT,
    "--limit",
    type=click.IntRange(min=1),
    default=2000,
    help="Take at most this many documents of INPUT, and report how many were skipped.",
)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON on standard output, for programs."
)


def timeout_option(text: str) -> Callable[[Command], Command]:
    """`--timeout`, with a text for the help."""
    return click.option(
        "--timeout",
        metavar="SECONDS",
        type=Numbers(min=0, min_open=True),
        default=60.0,
        help=text,
    )


def _shard(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Shard | None:
    try:
        return None if value is None else Shard.parse(value)
    except InvalidArgument as error:
        raise click.BadParameter(str(error)) from None


def _names(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = (name.strip() for name in (value or "").split(","))
    return tuple(dict.fromkeys(name for name in names if name))


_shard_option = grouped(
    INPUT,
    "--shard",
    metavar="I/N",
    callback=_shard,
    help="Process only part I of N of INPUT, so that N machines can share the work. A part is"
    " every N-th document; together the parts hold each document once.",
)

_keep_option = grouped(
    INPUT,
    "--keep",
    metavar="NAME,...",
    callback=_names,
    help="More fields or columns of INPUT to keep with each vector, for example label,url:"
    " strings, numbers, booleans or dates.",
)


def _column_option(name: str, default: str, holds: str) -> Callable[[Command], Command]:
    return grouped(
        INPUT,
        name,
        metavar="NAME",
        default=default,
        help=f"The field or column of INPUT that holds {holds}.",
    )


_column_options = (
    _column_option(
        "--column", "text", "a document: its text, the messages of a chat, or token ids"
    ),
    _column_option("--id-column", "id", "the id of a document"),
)


@dataclass(frozen=True)
class Input:
    """The documents that a verb reads, as its options name them.

    Attributes:
        path: The folder or file; None if none is given.
        columns: Its fields or columns.
        shard: The part of it; None for all.
    """

    path: Path | None
    columns: Columns
    shard: Shard | None = None

    def open(self) -> DocumentSource:
        """Open the documents of a given `path`; see `open_documents`."""
        assert self.path is not None  # noqa: S101 - it is required, or the caller looked
        return open_documents(self.path, self.shard, self.columns)

    def or_samples(self) -> Iterable[Document | Failure]:
        """Open the documents, or the sample corpus if no path is given.

        Raises:
            click.UsageError: columns are named for the sample corpus.
            UnsupportedInput: the path cannot be read, or does not have the columns.
        """
        if self.path is not None:
            return self.open()
        self.refuse_columns()
        return sample_corpus()

    def refuse_columns(self) -> None:
        """See that no columns are named, if the documents are not of an INPUT that has them.

        Raises:
            click.UsageError: some are.
        """
        if self.columns != Columns():
            raise click.UsageError("--column, --id-column and --keep are for an INPUT")


def reads_input(
    *, required: bool = True, shard: bool = False, keep: bool = False
) -> Callable[[Command], Callable[..., Any]]:
    """INPUT and the options that go with it, which a verb takes as `source`.

    Args:
        required: Whether it must be given.
        shard: Whether a shard of it can be named.
        keep: Whether columns can be kept.
    """
    metavar = "INPUT" if required else "[INPUT]"
    argument = click.argument("source", metavar=metavar, type=AnyPath(), required=required)
    parts = [argument, *[_shard_option] * shard, *[_keep_option] * keep, *_column_options]
    return takes("source", _input, *parts)


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


def _columns(column: str, id_column: str, keep: tuple[str, ...] = ()) -> Columns:
    return Columns(column, id_column, keep)


def _input(source: Path | None, *, shard: Shard | None = None, **columns: Any) -> Input:
    return Input(source, _columns(**columns), shard)


# `--column` and `--id-column`, which a verb of another argument takes as `columns`.
column_options = takes("columns", _columns, *_column_options)
