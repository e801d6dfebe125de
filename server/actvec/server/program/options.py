"""The command line of `actvec-server`, made from its settings, and the way back to them.

Other programs that load a model take its options from here too.
"""

import functools
import math
import os
import re
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import click

from actvec.server.config import (
    AccessOptions,
    Limits,
    ModelOptions,
    ServerConfig,
    Setting,
    WatchOptions,
)

Config = TypeVar("Config")
Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(dir_okay=False, path_type=Path)

# GPUs that a range may number: more than any machine has, and few enough for a list of them.
_GPUS = 1024


class GroupedCommand(click.Command):
    """A command whose help groups its options under headings, in order."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of each group."""
        groups = groupby(self.get_params(ctx), lambda param: getattr(param, "group", "Other"))
        for title, params in groups:
            records = [param.get_help_record(ctx) for param in params]
            with formatter.section(title):
                formatter.write_dl([record for record in records if record is not None])


class _GroupedOption(click.Option):
    def __init__(self, *args: Any, group: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.group = group


class _Numbers(click.FloatRange):
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        # No bound of click keeps NaN out.
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


_ABOVE_ZERO = _Numbers(0, min_open=True)


class _Layers(click.ParamType[tuple[int, ...]]):
    name = "layers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            return tuple(int(layer) for layer in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of block numbers such as 25,26,27", param, ctx)


class _Devices(click.ParamType[tuple[str, ...]]):
    name = "devices"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        parts = [_devices(part.strip()) for part in str(value).split(",")]
        names = [name for part in parts for name in part]
        gpus = [name for name in names if name != "cpu"]
        if not all(parts) or "auto" in names or len(set(gpus)) < len(gpus):
            self.fail(f"{value!r} is not a list of different GPUs such as 0-7 or 0,2", param, ctx)
        return tuple(names)


def _devices(part: str) -> list[str]:
    """The devices that a number, a range or a name means; none if it makes no sense."""
    first, _, last = part.partition("-")
    if first.isdecimal() and (last.isdecimal() or part == first):
        until = int(last or first) + 1
        return [f"cuda:{number}" for number in range(int(first), until)] if until <= _GPUS else []
    return [part] if part else []


class _MaxLayer(click.ParamType[int]):
    name = "layer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "last":
            return -1
        if not str(value).isdecimal():
            self.fail(f"{value!r} is not the number of a block, or `last`", param, ctx)
        return int(value)


_GROUPS = {
    "Model": ModelOptions,
    "Serving": ServerConfig,
    "Access": AccessOptions,
    "Limits": Limits,
    "Monitoring": WatchOptions,
}

# Types that the type of a setting alone does not determine.
_TYPES: dict[str, click.ParamType[Any]] = {
    "layers": _Layers(),
    "devices": _Devices(),
    "max_layer": _MaxLayer(),
    "data_dir": click.Path(file_okay=False, path_type=Path),
}

# Every float is a time.
_METAVARS: dict[Any, str] = {float: "SECONDS", int: "N", int | None: "N"}


def server_options(command: Command) -> Command:
    """All options, for a `GroupedCommand`."""
    for title in reversed(_GROUPS):
        command = _with_options(command, title)
    return command


def model_options(*left_out: str) -> Callable[[Command], Command]:
    """Options for `ModelOptions`, except some, for a program that loads a model itself."""
    return functools.partial(_with_options, group="Model", left_out=left_out)


def server_config(options: Mapping[str, Any]) -> ServerConfig:
    """Build the configuration from options; each has the name of its field."""
    token = os.environ.get("ACTVEC_TOKEN", "").strip()
    layers, max_layer = options.get("layers"), options.get("max_layer")
    if layers and max_layer is not None and -1 < max_layer < max(layers):
        raise click.UsageError(
            f"--max-layer {max_layer} is below layer {max(layers)} of --layers; drop "
            "one of them, or name a later layer"
        )
    if options.get("devices") and options.get("device") != ModelOptions.device:
        raise click.UsageError("--device and --devices exclude each other; drop one of them")
    return _taken(
        ServerConfig,
        options,
        model=_taken(ModelOptions, options),
        limits=_taken(Limits, options),
        access=_taken(AccessOptions, options, token=token or None),
        watch=_taken(WatchOptions, options),
    )


def _taken(kind: type[Config], options: Mapping[str, Any], **rest: Any) -> Config:
    names = {field.name for field in fields(kind)} & options.keys() - rest.keys()  # type: ignore[arg-type]
    return kind(**{name: options[name] for name in names}, **rest)


def _with_options(command: Command, group: str, left_out: Collection[str] = ()) -> Command:
    """Add the options of a group."""
    settings = _GROUPS[group]
    options = [
        _option(group, name, getattr(settings, name), *get_args(hint))
        for name, hint in get_type_hints(settings, include_extras=True).items()
        if get_origin(hint) is Annotated and name not in left_out
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _option(
    group: str, name: str, default: Any, kind: Any, setting: Setting
) -> Callable[[Command], Command]:
    """The option of one setting."""
    description = setting.help + (f"  [default: {setting.unset}]" if setting.unset else "")
    return click.option(
        _flag(name),
        cls=_GroupedOption,
        group=group,
        default=default,
        show_default=True,
        help=re.sub(r"{(\w+)}", lambda named: _flag(named[1]), description),
        is_flag=kind is bool,
        type=_TYPES.get(name) or _type_of(setting, kind),
        metavar=None if name in _TYPES else _METAVARS.get(kind),
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _type_of(setting: Setting, kind: Any) -> click.ParamType[Any]:
    """Return click's type for a setting's values, or for None and these."""
    kind = next(one for one in get_args(kind) or (kind,) if one is not types.NoneType)
    if setting.choices:
        return click.Choice(setting.choices)
    if kind is int:
        return click.IntRange(*setting.bounds or (1,))
    if kind is float:
        return _Numbers(*setting.bounds) if setting.bounds else _ABOVE_ZERO
    return _FILE if kind is Path else click.BOOL if kind is bool else click.STRING
