"""Options that several verbs have, and the way from them to a client."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from actvec.client.channel import DEFAULT_TARGET, TlsFiles
from actvec.client.cli.waiting import WaitingLines
from actvec.client.documents import Columns, Shard, read_text
from actvec.client.errors import InvalidArgument
from actvec.client.place import Waking
from actvec.client.sync import Client

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Server:
    """Which server a verb talks to, and as whom; None where an option is not given.

    Attributes:
        target: HOST:PORT, https://HOST:PORT or modal://APP.
        workers: How many workers of an app on Modal are to be there.
        wake_for: Seconds that a server which is asleep is waited for.
        token: The server's token.
        token_file: A file whose first token is the server's, where `token` is not given.
        tls_ca: Authorities that may have signed the server's certificate.
        tls_cert: This client's certificate chain.
        tls_key: Its private key.
    """

    target: str | None
    workers: int | None
    wake_for: float | None
    token: str | None
    token_file: Path | None
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None

    def connect(self, *, timeout: float = 60.0, retry_for: float = 300.0) -> Client:
        """A client of it, which says on standard error when it waits for a server to wake up.

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
            tls=TlsFiles(self.tls_ca, self.tls_cert, self.tls_key),
            timeout=timeout,
            retry_for=retry_for,
            workers=self.workers,
            waking=Waking(seconds, WaitingLines()),
        )

    def _token(self) -> str | None:
        if self.token or self.token_file is None:
            return self.token
        try:
            lines = [line.strip() for line in read_text(self.token_file).splitlines()]
        except ValueError as error:
            raise click.UsageError(f"{self.token_file}: {error}") from None
        token = next((line for line in lines if line and not line.startswith("#")), None)
        if token is None:
            raise click.UsageError(f"{self.token_file} has no token: write it on a line")
        return token


_OPTIONS = {
    "target": (
        "HOST:PORT",
        "The server's address; https://HOST:PORT for one with TLS, modal://APP[/ENVIRONMENT] for"
        f" an app on Modal.  [default: {DEFAULT_TARGET}; env: ACTVEC_TARGET]",
    ),
    "workers": (
        "N",
        "Workers of an app on Modal: `stream` is spread over N, and those that are missing are"
        " started.  [default: those that are there, or one; env: ACTVEC_WORKERS]",
    ),
    "wake-for": (
        "SECONDS",
        "How long a server on Modal that is asleep is waited for.  [default:"
        f" {Waking.seconds:.0f}; env: ACTVEC_WAKE_FOR]",
    ),
    "token": ("TOKEN", "The server's token, where it wants one.  [env: ACTVEC_TOKEN]"),
    "token-file": ("FILE", "A file to read the token from.  [env: ACTVEC_TOKEN_FILE]"),
    "tls-ca": (
        "FILE",
        "Who signs the server's certificate, where no public authority does.  [env: ACTVEC_TLS_CA]",
    ),
    "tls-cert": (
        "FILE",
        "This client's certificate, where the server wants one.  [env: ACTVEC_TLS_CERT]",
    ),
    "tls-key": ("FILE", "Its private key.  [env: ACTVEC_TLS_KEY]"),
}


_TYPES = {
    "FILE": click.Path(path_type=Path),
    "N": click.IntRange(min=1),
    "SECONDS": click.FloatRange(min=0),
}


def server_options(*, envvars: bool) -> Callable[[Command], Command]:
    """The options of a `Server`; read from the environment where `envvars`."""

    def decorate(command: Command) -> Command:
        for name, (metavar, description) in reversed(_OPTIONS.items()):
            command = click.option(
                f"--{name}",
                metavar=metavar,
                type=_TYPES.get(metavar, str),
                envvar=f"ACTVEC_{name.upper().replace('-', '_')}" if envvars else None,
                help=description,
            )(command)
        return command

    return decorate


def talks_to_server(command: Command) -> Callable[..., Any]:
    """Give a verb a `Server` as its first argument, of options before the verb and after it."""

    def with_server(outer: Server, /, *args: Any, **kwargs: Any) -> Any:
        after = {field.name: kwargs.pop(field.name) for field in fields(Server)}
        given = {name: value for name, value in after.items() if value is not None}
        return command(replace(outer, **given), *args, **kwargs)

    # The wrapper keeps the command's name, help and the options it has already.
    wrapped = functools.update_wrapper(click.pass_obj(with_server), command)
    return server_options(envvars=False)(wrapped)


truncation_option = click.option(
    "--truncation",
    type=click.Choice(["error", "start", "end"]),
    default="error",
    show_default=True,
    help="What happens to a text over the model's context: it fails, or its start or its end is"
    " kept.",
)

bos_option = click.option(
    "--bos/--no-bos",
    default=None,
    help="Whether the BOS token comes first.  [default: if the tokenizer has one]",
)


def check_center(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """A mean's name as it was given; an unset variable of a shell leaves an empty one.

    Raises:
        click.BadParameter: it is empty.
    """
    if value is not None and not value.strip():
        raise click.BadParameter(
            "it is empty; give a corpus mean's id, its name or latest, or leave the option out"
        )
    return value


center_option = click.option(
    "--center",
    metavar="latest|NAME|ID",
    callback=check_center,
    help="The corpus mean to subtract.  [default: none, raw vectors]",
)

limit_option = click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Documents of INPUT that are taken; how many are left out is said.",
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


shard_option = click.option(
    "--shard",
    metavar="I/N",
    type=_ShardType(),
    help="Only the I-th of N parts of INPUT, for N machines that share the work: every N-th"
    " document. The parts together are each document once.",
)


def column_options(command: Command) -> Callable[..., Any]:
    """`--column` and `--id-column`, which a verb takes as `columns`."""

    def with_columns(*args: Any, column: str, id_column: str, **kwargs: Any) -> Any:
        return command(*args, columns=Columns(column, id_column), **kwargs)

    # The wrapper keeps the command's name, help and the options it has already.
    wrapped = functools.update_wrapper(with_columns, command)
    for name, holds, default in (("id-column", "id", "id"), ("column", "text", "text")):
        wrapped = click.option(
            f"--{name}",
            metavar="NAME",
            default=default,
            show_default=True,
            help=f"The field or column of INPUT that holds the {holds} of a document.",
        )(wrapped)
    return wrapped


def vector_options(command: Command) -> Command:
    """`--mode`, `--center`, `--truncation` and `--bos`: how documents become vectors."""
    mode_option = click.option(
        "--mode",
        type=click.Choice(["short", "long"]),
        required=True,
        help="One pool (D numbers), or four (4 D).",
    )
    for option in (bos_option, truncation_option, center_option, mode_option):
        command = option(command)
    return command


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON on standard output, for programs."
)
