"""An inspection for people: a table and a histogram, for a terminal or a notebook."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from actvec.client.corpora.inspection import Inspection, Lengths

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_BAR = 40


def inspection_table(inspection: Inspection, shown: Callable[[str], str] = str) -> "Group":
    """Format an inspection for `rich.print`.

    Args:
        inspection: The inspection.
        shown: Makes an id safe to print on a terminal, which would obey escape sequences in it.
    """
    from rich.console import Group  # noqa: PLC0415 - slow to import

    counts = {
        "readable": inspection.documents,
        "unreadable": inspection.unreadable,
        "empty": inspection.empty,
        "duplicates": inspection.duplicates,
        "repeated ids": inspection.repeated_ids,
    }
    if inspection.over_context is not None:
        counts[f"over {inspection.context:,} tokens"] = inspection.over_context
    rows = [(name, f"{count:,}") for name, count in counts.items()]
    parts = [_table(("documents", ""), rows)]
    units = {"tokens": inspection.tokens, "words": inspection.words, "bytes": inspection.bytes}
    measured = {name: lengths for name, lengths in units.items() if lengths is not None}
    if measured:
        parts += [_lengths(measured, shown), _histogram(*next(iter(measured.items())))]
    return Group(*parts)


def _lengths(units: dict[str, Lengths], shown: Callable[[str], str]) -> "Table":
    of = units.values()
    rows = [
        ("total", *(f"{one.total:,}" for one in of)),
        ("mean", *(f"{one.mean:,.1f}" for one in of)),
        ("median", *(f"{one.median:,.1f}" for one in of)),
        ("shortest", *(f"{one.shortest.length:,}" for one in of)),
        ("", *(shown(one.shortest.id) for one in of)),
        ("longest", *(f"{one.longest.length:,}" for one in of)),
        ("", *(shown(one.longest.id) for one in of)),
    ]
    return _table(("length", *units), rows)


def _histogram(unit: str, lengths: Lengths) -> "Table":
    most = max(one.documents for one in lengths.histogram)
    rows = [
        (
            f"{one.low:,}" if one.low == one.high else f"{one.low:,} to {one.high:,}",
            f"{one.documents:,}",
            _bar(one.documents / most),
        )
        for one in lengths.histogram
    ]
    table = _table((unit, "documents", ""), rows)
    table.columns[2].justify = "left"
    return table


def _bar(share: float) -> str:
    """A bar of a share of the full width, to an eighth of a letter."""
    whole, eighths = divmod(max(round(share * _BAR * 8), int(share > 0)), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> "Table":
    from rich import box, table, text  # noqa: PLC0415

    grid = table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        grid.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        # As text: an id may look like markup.
        grid.add_row(*map(text.Text, row))
    return grid
