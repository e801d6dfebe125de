"""Options that several verbs have, and the way from them to a client."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from actvec.client.channel import DEFAULT_TARGET
from actvec.client.sync import Client

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Server:
    """Which server a verb talks to, and as whom.

    Attributes:
        target: HOST:PORT; None for the default.
        token: The server's token; None without one.
    """

    target: str | None
    token: str | None

    def connect(self, **settings: float) -> Client:
        """A client of it; `settings` are those of `Client`.

        Raises:
            ActvecError: the address is none, or a token would travel in the clear.
        """
        return Client(self.target or DEFAULT_TARGET, token=self.token, **settings)


def server_options(*, envvars: bool) -> Callable[[Command], Command]:
    """`--target` and `--token`; read from the environment where `envvars`."""

    def decorate(command: Command) -> Command:
        token = click.option(
            "--token",
            metavar="TOKEN",
            envvar="ACTVEC_TOKEN" if envvars else None,
            help="The server's token, where it wants one.  [env: ACTVEC_TOKEN]",
        )
        target = click.option(
            "--target",
            metavar="HOST:PORT",
            envvar="ACTVEC_TARGET" if envvars else None,
            help=f"The server's address.  [env: ACTVEC_TARGET; default: {DEFAULT_TARGET}]",
        )
        return target(token(command))

    return decorate


def talks_to_server(command: Command) -> Callable[..., Any]:
    """Give a verb a `Server` as its first argument, of options before the verb and after it."""

    def with_server(
        outer: Server, /, *args: Any, target: str | None, token: str | None, **kwargs: Any
    ) -> Any:
        server = Server(target or outer.target, token or outer.token)
        return command(server, *args, **kwargs)

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

center_option = click.option(
    "--center",
    metavar="latest|ID",
    help="The corpus mean to subtract.  [default: none, raw vectors]",
)

limit_option = click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Documents of INPUT that are taken; how many are left out is said.",
)


def vector_options(command: Command) -> Command:
    """`--mode`, `--center` and `--truncation`: how documents become vectors."""
    mode_option = click.option(
        "--mode",
        type=click.Choice(["short", "long"]),
        required=True,
        help="One pool (D numbers), or four (4 D).",
    )
    for option in (truncation_option, center_option, mode_option):
        command = option(command)
    return command


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON on standard output, for programs."
)
