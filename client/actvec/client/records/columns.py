"""Columns that a document carries beside its content, such as a label, a URL or a date."""

import datetime
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

Scalar = str | int | float | bool | None
"""A value of a column."""

NO_COLUMNS: Mapping[str, Scalar] = MappingProxyType({})


def as_columns(given: Mapping[str, object]) -> dict[str, Scalar]:
    """Columns by name, as JSON takes them.

    Dates and times become their ISO 8601 text, scalars of NumPy and torch Python's, and
    `is_missing` ones None.

    Args:
        given: The values: strings, numbers, booleans, dates or None.

    Raises:
        TypeError: `given` is no dict, or a value is something else, such as a list.
        ValueError: a number is infinite, or a text cannot be written in UTF-8.

    Examples:
        >>> as_columns({"label": "news", "score": np.float32(0.5), "stars": float("nan")})
        {'label': 'news', 'score': 0.5, 'stars': None}
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"columns are a dict of names and values, not {type(given).__name__}")
    return {_text(name, "the name of a column"): _scalar(name, given[name]) for name in given}


def by_name(rows: Sequence[Mapping[str, Scalar]]) -> dict[str, list[Scalar]]:
    """The columns of several documents by name, with None for a document that has no such column.

    Examples:
        >>> by_name([{"label": "news"}, {"label": "blog", "year": 2024}])
        {'label': ['news', 'blog'], 'year': [None, 2024]}
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def is_missing(value: object) -> bool:
    """Whether a value is None or stands for a missing one: NaN, and NaT and NA of pandas."""
    if isinstance(value, float | np.floating | np.datetime64):
        return bool(value != value)  # noqa: PLR0124 - these alone differ from themselves
    return value is None or type(value).__name__ in {"NAType", "NaTType"}


def of_python(value: Any) -> Any:
    """A scalar of NumPy or torch as Python's, and any other value unchanged."""
    # Of nanoseconds, Python has only an integer.
    is_scalar = getattr(value, "ndim", None) == 0 and not isinstance(value, np.datetime64)
    return value.item() if is_scalar else value


def _scalar(name: object, value: object) -> Scalar:
    what = f"column {name!r:.80}"
    value = of_python(value)
    if is_missing(value):
        return None
    if isinstance(value, np.datetime64):
        return str(value)
    match value:
        case bool() | int():
            return value
        case float():
            if math.isinf(value):
                raise ValueError(f"{what} holds {value}, which JSON does not have")
            return value
        case str():
            return _text(value, what)
        case datetime.date() | datetime.time():
            return value.isoformat()
        case _:
            raise TypeError(
                f"{what} holds a {type(value).__name__}; it may hold strings, numbers, booleans,"
                " dates or nothing"
            )


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is a str, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} cannot be written in UTF-8: character {error.start} is half of a surrogate"
            " pair"
        ) from None
    return value
