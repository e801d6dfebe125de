"""The options that name a server, and the way from them to a client."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from actvec.client.api.client import Client
from actvec.client.cli.commands import SERVER, Numbers, grouped, takes
from actvec.client.cli.paths import AnyPath
from actvec.client.cli.progress import waiting_lines
from actvec.client.documents import read_text
from actvec.client.errors import ActvecError
from actvec.client.transport.address import DEFAULT_TARGET, Waking
from actvec.client.transport.channel import TlsFiles


@dataclass(frozen=True)
class Connect:
    """Which server a verb talks to, and how: the values of `_OPTIONS`, None if not given."""

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
        """Make a client, which reports on standard error that it waits for a server to wake up.

        Args:
            timeout: As of `Client`.
            retry_for: As of `Client`.

        Raises:
            ActvecError: the address is invalid, a file is unusable, or a token would travel
                unencrypted.
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
    "FILE": AnyPath(),
    "N": click.IntRange(min=1),
    "SECONDS": Numbers(min=0),
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


def server_options(*, envvars: bool) -> list[Callable[[Any], Any]]:
    """The options of a `Connect`; read from the environment if `envvars`."""
    return [
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


def connect_before(**options: Any) -> Connect:
    """The options before the verb, and the environment."""
    source = click.get_current_context().get_parameter_source
    if (source("token"), source("token_file")) == (
        ParameterSource.ENVIRONMENT,
        ParameterSource.COMMANDLINE,
    ):
        options["token"] = None
    return Connect(**options)


def _connect(**options: Any) -> Connect:
    """The options before the verb, and those after it, which count more."""
    before = click.get_current_context().find_object(Connect)
    assert before is not None  # noqa: S101 - of the program's own group
    given = {name: value for name, value in options.items() if value is not None}
    if "token_file" in given:
        given.setdefault("token", None)
    return replace(before, **given)


# The options of a `Connect`, which a verb takes as `server`.
talks_to_server = takes("server", _connect, *server_options(envvars=False))
