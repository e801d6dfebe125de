"""The program `actvec`. One module a verb, imported when the verb is used."""

import importlib
import io
import re
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.metadata import entry_points
from types import MappingProxyType

import click

from actvec.client.cli.commands import Verbs, takes
from actvec.client.cli.printing import note
from actvec.client.cli.server import Connect, connect_before, explained, server_options
from actvec.client.errors import ActvecError

# Verb -> the module that holds its command, under the same name. In the order of the work: from a
# corpus to its mean, to vectors, to what they tell and whether they are right.
_VERBS: Mapping[str, str] = MappingProxyType(
    {
        "corpus": "actvec.client.cli.corpus",
        "plan": "actvec.client.cli.plan",
        "info": "actvec.client.cli.info",
        "mean": "actvec.client.cli.mean",
        "extract": "actvec.client.cli.extract",
        "stream": "actvec.client.cli.stream",
        "whiten": "actvec.client.cli.findings.whiten",
        "direction": "actvec.client.cli.findings.direction",
        "probe": "actvec.client.cli.findings.probe",
        "neighbors": "actvec.client.cli.findings.neighbors",
        "similarity": "actvec.client.cli.similarity",
        "report": "actvec.client.cli.report",
        "csv": "actvec.client.cli.csv",
        "verify": "actvec.client.cli.verify",
        "check": "actvec.client.cli.findings.check",
    }
)

# The group of entry points in which other packages name verbs of theirs.
_OTHERS = "actvec.commands"


# Fields of a request that a server may not have: what it has, it lists.
_OFFERED = re.compile(r"\b(settings|open)\.(layers|hook|pools)\b")


class _LazyGroup(Verbs):
    """A group that imports a verb's module when the verb is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*_VERBS, *(one.name for one in entry_points(group=_OTHERS))]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; an unknown one is an error that names those like it.

        click names those of other groups itself, but knows none of this one.
        """
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if like := get_close_matches(args[0], self.list_commands(ctx)):
                meant = " or ".join(map(repr, like))
                raise click.UsageError(f"{error.message} Did you mean {meant}?", ctx) from None
            raise

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name in _VERBS:
            command = getattr(importlib.import_module(_VERBS[cmd_name]), cmd_name)
            assert isinstance(command, click.Command)  # noqa: S101 - of our own module
            return command
        for one in entry_points(group=_OTHERS, name=cmd_name):
            found: click.Command = one.load()
            return found
        return None


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(package_name="actvec", prog_name="actvec")
@takes("server", connect_before, *server_options(envvars=True))
@click.pass_context
def cli(ctx: click.Context, server: Connect) -> None:
    """Turn documents into activation vectors of a language model."""
    ctx.obj = server


def main(arguments: list[str] | None = None) -> None:
    """Run the program and exit: 0 done, 1 some documents failed, 2 nothing can be done."""
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        return int(cli.main(arguments, prog_name="actvec", standalone_mode=False) or 0)
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        note(*text.getvalue().expandtabs(4).rstrip("\n").split("\n"))
    except ActvecError as error:
        note(f"Error: {explained(error)}")
        if offered := _OFFERED.search(str(error)):
            note("`actvec info` lists the layers, hooks and pools on offer.")
            if offered[2] == "layers":
                note("A server with --max-layer last offers every layer of its model.")
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        note(f"Error: {error.strerror or error}{where}")
    except click.Abort:
        return 130
    return 2
