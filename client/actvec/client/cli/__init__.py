"""The program `actvec`. One module a verb, imported when the verb is used."""

import importlib
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click

from actvec.client.cli.options import Server, server_options
from actvec.client.errors import ActvecError

# Verb -> the module that holds its command, under the same name.
_VERBS: Mapping[str, str] = MappingProxyType(
    {
        "info": "actvec.client.cli.info",
        "extract": "actvec.client.cli.extract",
        "stream": "actvec.client.cli.stream",
        "mean": "actvec.client.cli.mean",
        "report": "actvec.client.cli.report",
        "verify": "actvec.client.cli.verify",
        "similarity": "actvec.client.cli.similarity",
        "csv": "actvec.client.cli.csv",
        "corpus": "actvec.client.cli.corpus",
        "plan": "actvec.client.cli.plan",
    }
)


class _LazyGroup(click.Group):
    """A group that imports a verb's module when the verb is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _VERBS:
            return None
        command = getattr(importlib.import_module(_VERBS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101 - of our own module
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="actvec", prog_name="actvec")
@server_options(envvars=True)
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    """Turn documents into activation vectors of a language model."""
    ctx.obj = Server(**options)


def main(arguments: list[str] | None = None) -> None:
    """Run the program and exit: 0 done, 1 some documents failed, 2 nothing can be done."""
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        return int(cli.main(arguments, prog_name="actvec", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
    except ActvecError as error:
        click.echo(f"Error: {error}", err=True)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        click.echo(f"Error: {error.strerror or error}{where}", err=True)
    except click.Abort:
        return 130
    return 2
