"""Options that several verbs have, and the way from them to a client."""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from actvec.client.api.client import Client
from actvec.client.bulk.remote import is_remote
from actvec.client.cli.commands import INPUT, SERVER, add_options, grouped, wrap
from actvec.client.cli.progress import waiting_lines
from actvec.client.documents import Columns, Shard, read_text
from actvec.client.errors import ActvecError, InvalidArgument
from actvec.client.records.vectors import Document
from actvec.client.transport.address import DEFAULT_TARGET, Waking
from actvec.client.transport.channel import TlsFiles

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Connect:
    """Which server a verb talks to, and with which token; None if an option is not given.

    Attributes:
        target: HOST:PORT, https://HOST:PORT or modal://APP.
        workers: How many workers of an app on Modal are to be there.
        wake_for: Seconds that a server which is asleep is waited for.
        token: The server's token.
        token_file: A file whose first token is the server's, if `token` is not given.
        headers: `NAME=VALUE,NAME=VALUE`: what else goes with each call.
        tls_ca: Authorities that may have signed the server's certificate.
        tls_cert: This client's certificate chain.
        tls_key: Its private key.
    """

    target: str | None
    workers: int | None
    wake_for: float | None
    token: str | None
    token_file: Path | None
    headers: str | None
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None

    def connect(self, *, timeout: float = 60.0, retry_for: float = 300.0) -> Client:
        """A client of it, which reports on standard error that it waits for a server to wake up.

        Args:
            timeout: As of `Client`.
            retry_for: As of `Client`.

        Raises:
            ActvecError: the address is none, a file is not usable, or a token would travel in the
                clear.
        """
        seconds = Waking.seconds if self.wake_for is None else self.wake_for
        return Client(
            self.target or DEFAULT_TARGET,
            token=self._token(),
            headers=self._headers(),
            tls=TlsFiles(self.tls_ca, self.tls_cert, self.tls_key),
            timeout=timeout,
            retry_for=retry_for,
            workers=self.workers,
            waking=Waking(seconds, waiting_lines()),
        )

    def _headers(self) -> dict[str, str]:
        pairs = [pair.partition("=") for pair in (self.headers or "").split(",") if pair.strip()]
        # Not the text itself: it may hold a secret.
        if not all(equals and name.strip() for name, equals, _ in pairs):
            raise click.UsageError(
                "--headers / ACTVEC_HEADERS must have the form NAME=VALUE,NAME=VALUE"
            )
        return {name.strip(): value.strip() for name, _, value in pairs}

    def _token(self) -> str | None:
        if self.token or self.token_file is None:
            return self.token
        try:
            lines = [line.strip() for line in read_text(self.token_file).splitlines()]
        except ValueError as error:
            raise click.UsageError(f"{self.token_file}: {error}") from None
        token = next((line for line in lines if line and not line.startswith("#")), None)
        if token is None:
            raise click.UsageError(
                f"{self.token_file} has no token; write one on a line of its own"
            )
        return token


_OPTIONS = {
    "target": (
        "HOST:PORT",
        "The server's address; https://HOST:PORT for one with TLS, modal://APP[/ENVIRONMENT] for"
        f" an app on Modal.  [default: {DEFAULT_TARGET}; env: ACTVEC_TARGET]",
    ),
    "workers": (
        "N",
        "Workers of an app on Modal: missing ones are started, and `stream` spreads "
        "over all N.  [default: the running ones, or one; env: ACTVEC_WORKERS]",
    ),
    "wake-for": (
        "SECONDS",
        "Give up a server on Modal that has not started after this long.  [default: "
        f"{Waking.seconds:.0f}; env: ACTVEC_WAKE_FOR]",
    ),
    "token": ("TOKEN", "The server's token, if it needs one.  [env: ACTVEC_TOKEN]"),
    "token-file": ("FILE", "A file to read the token from.  [env: ACTVEC_TOKEN_FILE]"),
    "headers": (
        "NAME=VALUE,...",
        "Headers to send with each call, for a proxy before the server.  [env: ACTVEC_HEADERS]",
    ),
    "tls-ca": (
        "FILE",
        "The authority that signed the server's certificate, if it is not a public "
        "one.  [env: ACTVEC_TLS_CA]",
    ),
    "tls-cert": (
        "FILE",
        "This client's certificate, if the server asks for one.  [env: ACTVEC_TLS_CERT]",
    ),
    "tls-key": ("FILE", "The private key of --tls-cert.  [env: ACTVEC_TLS_KEY]"),
}


_TYPES = {
    "FILE": click.Path(path_type=Path),
    "N": click.IntRange(min=1),
    "SECONDS": click.FloatRange(min=0),
}


def explained(error: ActvecError) -> str:
    """What went wrong, with the option to give: the library names its own arguments."""
    if not error.setting:
        return str(error)
    name = error.setting.replace("_", "-")
    variable = f" / {_variable(name)}" if name in _OPTIONS else ""
    return f"{error} (--{name}{variable})"


def _variable(name: str) -> str:
    return f"ACTVEC_{name.upper().replace('-', '_')}"


def server_options(*, envvars: bool) -> Callable[[Command], Command]:
    """The options of a `Connect`; read from the environment if `envvars`."""
    options = [
        grouped(
            SERVER,
            f"--{name}",
            metavar=metavar,
            type=_TYPES.get(metavar, str),
            envvar=_variable(name) if envvars else None,
            help=description,
        )
        for name, (metavar, description) in _OPTIONS.items()
    ]
    return lambda command: add_options(command, options)


def talks_to_server(command: Command) -> Callable[..., Any]:
    """Give a verb a `Connect` as its first argument, of options before the verb and after it."""

    def with_server(outer: Connect, /, *args: Any, **kwargs: Any) -> Any:
        after = {field.name: kwargs.pop(field.name) for field in fields(Connect)}
        given = {name: value for name, value in after.items() if value is not None}
        return command(replace(outer, **given), *args, **kwargs)

    return server_options(envvars=False)(wrap(click.pass_obj(with_server), command))


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


# The stores that take a job, for the help of options.
URLS = "s3://BUCKET/PATH, gs://BUCKET/PATH or hf://datasets/OWNER/NAME/PATH"


class OutPath(click.Path):
    """A path to write to. A URL is refused, because it would name a folder of this machine."""

    def __init__(self, *, dir_okay: bool = True, file_okay: bool = True) -> None:
        super().__init__(dir_okay=dir_okay, file_okay=file_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path that a text names."""
        if is_remote(value):
            self.fail(
                f"{value} is a URL; only --out of `actvec stream`, `actvec local` and `actvec ray`"
                " may be one",
                param,
                ctx,
            )
        return super().convert(_local(self, value, param, ctx), param, ctx)


class PathOrUrl(click.Path):
    """A path, or the URL of a store; a URL stays a string.

    Args:
        exists: Whether a path must exist.
        dir_okay: Whether a path may be one of a folder.
        file_okay: Whether a path may be one of a file.
    """

    def __init__(
        self, *, exists: bool = False, dir_okay: bool = True, file_okay: bool = True
    ) -> None:
        super().__init__(exists=exists, dir_okay=dir_okay, file_okay=file_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path or the URL that a text names."""
        if is_remote(value):
            return value
        return super().convert(_local(self, value, param, ctx), param, ctx)


def _local(
    kind: click.Path, value: Any, param: click.Parameter | None, ctx: click.Context | None
) -> Any:
    """A written path with a leading `~` as the home directory; an empty one is refused.

    A shell does not replace `~` in `--out=~/vectors`, and `rm -r ~` would not remove a folder of
    that name. The value of an unset variable is empty, and would stand for this folder. The home
    of an unknown user stays as written.
    """
    if value == "":
        kind.fail("it is empty; name a path, or . for this folder", param, ctx)
    return os.path.expanduser(value)


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
    """The document that a file with one text is.

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


safetensors_option = click.option(
    "--out",
    type=OutPath(dir_okay=False),
    required=True,
    help="The safetensors file to write.",
)
