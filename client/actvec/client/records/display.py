"""How records show themselves in a notebook."""

import html
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

# Width and height of a sparkline, in pixels.
_WIDTH, _HEIGHT = 240, 24

_EMPTY: tuple[object, ...] = ("", (), [], {})


class Html(str):
    """A text that is HTML already; any other text is escaped."""

    __slots__ = ()


def table(title: str, rows: Iterable[Sequence[object]]) -> Html:
    """An HTML table whose first column holds names.

    Args:
        title: What the table shows.
        rows: The cells of each row; texts are escaped, and sequences joined by commas.
    """
    lines = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:left">{_cell(cell)}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    return Html(f"<table><caption>{_cell(title)}</caption>{lines}</table>")


def record(title: str, values: Mapping[str, object]) -> Html:
    """A table of names and values, without the empty ones."""
    return table(title, ((name, value) for name, value in values.items() if value not in _EMPTY))


def details(summary: str, content: Html) -> Html:
    """Something that a click shows."""
    return Html(f"<details><summary>{_cell(summary)}</summary>{content}</details>")


def sparkline(values: NDArray[np.floating]) -> Html:
    """A drawing of numbers `[D]` in their order: for each pixel, from 0 to its extremes."""
    bins = np.array_split(values.astype(np.float64), min(len(values), _WIDTH))
    low, high = np.array([(min(one.min(), 0), max(one.max(), 0)) for one in bins]).T
    bottom, top = low.min(), high.max()
    scale = _HEIGHT / ((top - bottom) or 1)
    step = _WIDTH / len(bins)
    path = "".join(
        f"M{(at + 0.5) * step:.1f} {(top - upper) * scale:.1f}V{(top - lower) * scale + 0.6:.1f}"
        for at, (lower, upper) in enumerate(zip(low, high, strict=True))
    )
    return Html(
        f'<svg width="{_WIDTH}" height="{_HEIGHT + 1}" role="img">'
        f'<path d="{path}" stroke="currentColor" stroke-width="{max(step * 0.8, 0.8):.1f}"/></svg>'
    )


def _cell(value: object) -> str:
    if isinstance(value, Html):
        return value
    if isinstance(value, Mapping):
        value = [f"{name} {one}" for name, one in value.items()]
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return html.escape(str(value))
