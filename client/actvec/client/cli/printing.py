"""All that verbs print: lines, tables and JSON.

Ids, names, records and servers' messages are text that others wrote; `say`, `note` and the tables
escape what a terminal would obey in it.
"""

import json
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import numpy as np

if TYPE_CHECKING:
    from rich.console import RenderableType

# Invisible, but emoji and several scripts are spelled with them, and a terminal obeys neither.
_JOINERS = "\u200c\u200d"

# Characters of a line in a file: a row is never broken.
_PLAIN_WIDTH = 10_000


def say(*lines: str, err: bool = False) -> None:
    """Print lines on a terminal, each as `shown` gives it.

    Args:
        lines: Without line ends: those within a line are escaped.
        err: Print on standard error.
    """
    for line in lines:
        click.echo(shown(line), err=err)


def note(*lines: str) -> None:
    """Print lines on standard error: what is not the result that was asked for."""
    say(*lines, err=True)


def shown(text: str, width: int | None = None) -> str:
    r"""Text that others wrote, fit for one line of a terminal.

    A terminal obeys control characters, wherever they come from: they can move the cursor, set
    the window's title or hide what was printed before. Each character that is not printed as
    itself is replaced by Python's escape for it: control characters (line breaks and tabs too),
    marks that reverse the direction of text, lone surrogates, and invisible or unassigned
    characters. Letters of all scripts, spaces and backslashes stay.

    Args:
        text: The text.
        width: If given, text of more characters is cut to as many, and ends with "…".
            No escape is cut in half.

    Raises:
        ValueError: `width` is less than 1.

    Examples:
        >>> print(shown("a\x1b[2Jb\n"))
        a\x1b[2Jb\n
        >>> shown("a long name", width=6)
        'a lon…'
    """
    if width is not None and width < 1:
        raise ValueError(f"width is {width}; text needs 1 character or more")
    # A text of a gigabyte is not escaped for the sake of its first line.
    parts = list(map(_part, text if width is None else text[: width + 1]))
    if width is None or sum(map(len, parts)) <= width:
        return "".join(parts)
    room = width - 1
    kept = []
    for part in parts:
        room -= len(part)
        if room < 0:
            break
        kept.append(part)
    return "".join(kept) + "…"


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], names: int) -> None:
    """Print a table, without a header if there are no columns.

    Args:
        columns: Headings of the columns.
        rows: Their cells.
        names: The first columns, which are names and stand to the left; numbers stand to the right.
    """
    from rich import box, table, text  # noqa: PLC0415 - slow to import

    grid = table.Table(box=box.SIMPLE_HEAD if columns else None, show_header=bool(columns))
    for number, name in enumerate(columns or rows[0]):
        if number < names:
            grid.add_column(name, overflow="fold")
        else:
            grid.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        grid.add_row(*(text.Text(shown(cell)) for cell in row))
    print_rich(grid)


def print_by_layer(
    layers: Sequence[str],
    pools: Sequence[str],
    columns: Sequence[str],
    cells: Callable[[int, int], Sequence[str]],
) -> None:
    """Print a table with a row for each layer and pool, the layers of a pool together.

    Args:
        layers: Names of the layers.
        pools: Names of the pools.
        columns: Headings of the columns after `pool` and `layer`.
        cells: Gives their cells for a layer and a pool, by their places from 0.
    """
    rows = [
        [pool_name, layer_name, *cells(layer, pool)]
        for pool, pool_name in enumerate(pools)
        for layer, layer_name in enumerate(layers)
    ]
    print_rows(["pool", "layer", *columns], rows, names=2)


def fact_lines(facts: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each name and value."""
    width = max(len(name) for name, _ in facts)
    return [f"{name:<{width}}  {value}" for name, value in facts]


def print_result(record: Any, *lines: str, as_json: bool, indent: int | None = 2) -> None:
    """Print a result, as JSON for programs or in lines for people."""
    if as_json:
        print_json(record, indent)
    else:
        say(*lines)


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print a value as JSON: arrays as lists, and numbers that are not finite as null."""
    click.echo(json.dumps(_plain(value), indent=indent, allow_nan=False))


def print_rich(renderable: "RenderableType") -> None:
    """Print what rich renders.

    A terminal gets its colors and its width. A file or a pipe gets plain lines, as long as they
    are, without blanks at their ends.
    """
    from rich import console  # noqa: PLC0415 - slow to import

    screen = console.Console()
    if screen.is_terminal:
        screen.print(renderable)
        return
    plain = console.Console(width=_PLAIN_WIDTH)
    with plain.capture() as lines:
        plain.print(renderable)
    for line in lines.get().splitlines():
        say(line.rstrip())


def _part(character: str) -> str:
    """A character, or its escape."""
    if character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
