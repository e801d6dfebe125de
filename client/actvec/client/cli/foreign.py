"""The one way to print text that others wrote: ids, names, records, servers' messages."""

import unicodedata

import click

# Invisible, but emoji and several scripts are spelled with them, and a terminal obeys neither.
_JOINERS = "\u200c\u200d"


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

    Example:
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


def _part(character: str) -> str:
    """A character, or its escape."""
    if character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
