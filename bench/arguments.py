"""The options of the benchmarks, with a help that names the command, and the defaults."""

import argparse
from collections.abc import Iterable


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each default, except that an option is off."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default is None or default is False:
            return action.help
        if isinstance(default, list):
            return f"{action.help} (default: {' '.join(map(str, default))})"
        return super()._get_help_string(action)


def arguments(name: str, about: str | None) -> argparse.ArgumentParser:
    """Make the parser of `python -m bench.NAME`.

    Args:
        name: NAME.
        about: The docstring of the benchmark's module.
    """
    program = f"python -m bench.{name}"
    return argparse.ArgumentParser(prog=program, description=about, formatter_class=_Help)


def add_shape(parser: argparse.ArgumentParser, names: Iterable[str], default: str = "70m") -> None:
    """Add the option for the model's shape."""
    parser.add_argument(
        "--shape", choices=list(names), default=default, help="a Pythia of this size"
    )


def add_rounds(parser: argparse.ArgumentParser, default: int) -> None:
    """Add the option for the number of rounds."""
    parser.add_argument(
        "--rounds", type=int, default=default, help="interleaved rounds; the median counts"
    )
