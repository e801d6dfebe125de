"""Serve every model of the zoo and print what becomes of it.

python -m tests.zoo [--markdown FILE] [PATTERN ...]

Patterns as of a shell select entries by name. Exit code 1: a model is neither right nor refused in
one line.
"""

import argparse
import logging
import sys
import tempfile
import warnings
from fnmatch import fnmatch
from pathlib import Path

from transformers.utils import logging as transformers_logging

from .catalog import ZOO
from .outcome import Outcome, outcome_of
from .table import summary, table_row, write_markdown


def main() -> int:
    """Run the zoo; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="Entries, such as 'llama*'.")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="Page whose table to replace."
    )
    parser.add_argument("--list", action="store_true", help="Print the names alone.")
    options = parser.parse_args()
    chosen = [
        entry
        for entry in ZOO
        if not options.patterns or any(fnmatch(entry.name, one) for one in options.patterns)
    ]
    if not chosen:
        parser.error(f"no entry is named {' or '.join(options.patterns)}")
    if options.list:
        print(*(entry.name for entry in chosen), sep="\n")
        return 0
    outcomes = run(chosen)
    if options.markdown:
        write_markdown(outcomes, options.markdown)
    return 1 if any(outcome.fault for outcome in outcomes) else 0


def run(chosen: list) -> list[Outcome]:
    """Run entries one after the other, a line each as it is done, and a summary."""
    _quiet()
    outcomes = []
    for entry in chosen:
        with tempfile.TemporaryDirectory(prefix=f"zoo-{entry.name}-") as directory:
            outcomes.append(outcome_of(entry, Path(directory)))
        print(table_row(outcomes[-1]), flush=True)
    print(summary(outcomes))
    return outcomes


def _quiet() -> None:
    """No bars and no warnings of libraries between the lines of the table."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    sys.exit(main())
