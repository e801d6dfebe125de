"""Serve every model of the zoo and print the outcomes.

    python -m tests.zoo [--markdown FILE] [PATTERN ...]

Shell patterns select entries by name. Exit code 1: a model is neither right nor refused in one
line.
"""

import argparse
import logging
import sys
import tempfile
import warnings
from fnmatch import fnmatch
from pathlib import Path

from transformers.utils import logging as transformers_logging

from tests.zoo.catalog import ZOO
from tests.zoo.outcome import Outcome, outcome_of
from tests.zoo.table import summary, table_row, write_markdown


def main() -> int:
    """Run the zoo; return the exit code."""
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
    """Run entries one after the other, one line per entry, and print a summary."""
    _quiet()
    outcomes = []
    for entry in chosen:
        with tempfile.TemporaryDirectory(prefix=f"zoo-{entry.name}-") as directory:
            outcomes.append(outcome_of(entry, Path(directory)))
        print(table_row(outcomes[-1]), flush=True)
    print(summary(outcomes))
    return outcomes


def _quiet() -> None:
    """Keep libraries' progress bars and warnings out of the table."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    sys.exit(main())
