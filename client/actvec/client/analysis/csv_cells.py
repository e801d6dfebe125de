"""Lines of CSV whose labels come back as they were, from every reader, and run in none.

Python's own writer leaves a bare carriage return unquoted before 3.11.9 and 3.12.3, and a byte
order mark at the beginning of a file is taken off by readers. A spreadsheet computes a cell that
begins as a formula does: such a label gets an apostrophe before it, which `read_label` takes off.
"""

import re

# With any number of apostrophes before it, so that reading undoes writing whatever a label is.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")
_QUOTED = re.compile(r'[",\r\n\ufeff]|^\s|\s$')


def csv_line(*cells: object) -> str:
    """A line of labels and numbers, with its line end."""
    return ",".join(_quoted(_inert(str(cell))) for cell in cells) + "\n"


def read_label(cell: str) -> str:
    """The label that a cell was written for."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _inert(label: str) -> str:
    return f"'{label}" if _FORMULA.match(label) and not _NUMBER.fullmatch(label) else label


def _quoted(cell: str) -> str:
    # A line of nothing but an empty cell would be an empty line.
    if cell and not _QUOTED.search(cell):
        return cell
    return '"' + cell.replace('"', '""') + '"'
