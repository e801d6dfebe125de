"""An inspection for people: a table and a histogram, on a terminal or in a notebook."""

from typing import TYPE_CHECKING

from actvec.client.corpora.inspection import Inspection, Lengths

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_BAR = 40


def inspection_table(inspection: Inspection) -> "Group":
    """What `rich.print` shows of an inspection."""
    from rich.console import Group  # noqa: PLC0415 - slow to import

    parts = [_counts(inspection)]
    units = [
        (name, lengths)
        for name, lengths in (
            ("tokens", inspection.tokens),
            ("words", inspection.words),
            ("bytes", inspection.bytes),
        )
        if lengths is not None
    ]
    if units:
        parts += [_lengths(units), _histogram(*units[0])]
    return Group(*parts)


def _counts(inspection: Inspection) -> "Table":
    table = _table("documents", "")
    rows = [
        ("readable", inspection.documents),
        ("unreadable", inspection.unreadable),
        ("empty", inspection.empty),
        ("duplicates", inspection.duplicates),
    ]
    if inspection.over_context is not None:
        rows.append((f"over {inspection.context:,} tokens", inspection.over_context))
    for name, count in rows:
        table.add_row(name, f"{count:,}")
    return table


def _lengths(units: list[tuple[str, Lengths]]) -> "Table":
    from rich.text import Text  # noqa: PLC0415

    table = _table("length", *(name for name, _ in units))
    for name, values in (
        ("total", [f"{of.total:,}" for _, of in units]),
        ("mean", [f"{of.mean:,.1f}" for _, of in units]),
        ("median", [f"{of.median:,.1f}" for _, of in units]),
        ("shortest", [f"{of.shortest.length:,}" for _, of in units]),
        ("", [of.shortest.id for _, of in units]),
        ("longest", [f"{of.longest.length:,}" for _, of in units]),
        ("", [of.longest.id for _, of in units]),
    ):
        # As text: an id may look like markup.
        table.add_row(name, *map(Text, values))
    return table


def _histogram(unit: str, lengths: Lengths) -> "Table":
    table = _table(unit, "documents", "")
    table.columns[2].justify = "left"
    most = max(one.documents for one in lengths.histogram)
    for one in lengths.histogram:
        span = f"{one.low:,}" if one.low == one.high else f"{one.low:,} to {one.high:,}"
        table.add_row(span, f"{one.documents:,}", _bar(one.documents / most))
    return table


def _bar(share: float) -> str:
    """A bar of so much of the full width, to an eighth of a letter."""
    whole, eighths = divmod(max(round(share * _BAR * 8), int(share > 0)), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()


def _table(first: str, *others: str) -> "Table":
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table
