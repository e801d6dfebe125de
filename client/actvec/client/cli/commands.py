"""Commands and their help: what a command is for first, and options in groups."""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

# Groups of options that several commands have, in the order of their help.
VECTORS, INPUT, SERVER = "Vectors", "Input", "Server"

# All groups. "Model" has the options of commands of other packages, which load a model themselves.
_GROUPS = ("Options", "Model", VECTORS, INPUT, SERVER)

# Characters of a summary: it is one sentence, and is never cut.
_WHOLE = 1 << 10


# What the help calls the values of types that have no better name.
_METAVARS = {
    "integer": "N",
    "integer range": "N",
    "float": "NUMBER",
    "float range": "NUMBER",
}


class Numbers(click.FloatRange):
    """A number within bounds; NaN, which no bound of click keeps out, is none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number that a text names."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


class GroupedOption(click.Option):
    """An option with a place in the help.

    Args:
        group: The heading under which the help lists it.
    """

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class Verb(click.Command):
    """A command whose help lists its own options first, and then those of each group."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for one in self.params:
            one.metavar = one.metavar or _METAVARS.get(one.type.name)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, with a heading for each group."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in _GROUPS}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                groups[getattr(param, "group", "Options")].append(record)
        for name, records in groups.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


class Verbs(Verb, click.Group):
    """A group of commands, whose help lists them before its options, with whole summaries."""

    command_class = Verb

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, in their order, and then the options."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(_WHOLE)) for name, one in commands if one is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        super().format_options(ctx, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of the commands, in the order in which the module has them."""
        return list(self.commands)


def grouped(group: str, *declarations: str, **attributes: Any) -> Callable[[Command], Command]:
    """An option of a group; else as `click.option`."""
    return click.option(*declarations, cls=GroupedOption, group=group, **attributes)


def takes(
    argument: str, build: Callable[..., Any], *options: Callable[[Any], Any]
) -> Callable[[Command], Callable[..., Any]]:
    """Options that a verb takes as one argument.

    Args:
        argument: The argument's name.
        build: Makes its value of those of the options, each under the option's own name.
        options: The options or arguments, in the order of the help. One may stand for several.
    """
    # An option is added to a command, whose public list tells the names of what it stands for.
    holder = click.Command(None)
    for option in options:
        option(holder)
    names = [one.name for one in holder.params if one.name is not None]

    def decorate(command: Command) -> Callable[..., Any]:
        def gather(*args: Any, **kwargs: Any) -> Any:
            value = build(**{name: kwargs.pop(name) for name in names})
            return command(*args, **{argument: value}, **kwargs)

        gathering = functools.update_wrapper(gather, command)
        for option in reversed(options):
            gathering = option(gathering)
        return gathering

    return decorate
