"""Outcomes as lines for a terminal and as the table of a page."""

from collections.abc import Sequence
from pathlib import Path

from tests.zoo.outcome import Outcome

_BEGIN = "<!-- zoo: begin, written by `make zoo` -->"
_END = "<!-- zoo: end -->"


def table_row(outcome: Outcome) -> str:
    """One line for a terminal."""
    name = outcome.entry.name
    kind = "" if outcome.entry.model_type == name else f"({outcome.entry.model_type})"
    engine = "fault" if _crashed(outcome) else outcome.engine or "refused"
    words = [
        f"{name:26} {kind:18} {engine:8}",
        f"{_error(outcome):8} {outcome.context or '':5} {_invariant(outcome):4}",
        f"{outcome.seconds:5.2f} s",
    ]
    if outcome.fault:
        words.append(f" FAULT {outcome.fault}")
    if outcome.refusal:
        words.append(f" {outcome.refusal}")
    return " ".join(words).rstrip()


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many are right, refused, and neither."""
    right = [one for one in outcomes if one.engine and not one.fault]
    refused = [one for one in outcomes if one.refusal and not one.fault]
    faults = [one for one in outcomes if one.fault]
    types = {one.entry.model_type for one in right}
    engines = sorted({one.engine for one in right if one.engine})
    counts = ", ".join(f"{sum(one.engine == name for one in right)} {name}" for name in engines)
    return (
        f"{len(outcomes)} models: {len(right)} right ({counts or 'none'}; {len(types)} types), "
        f"{len(refused)} refused, {len(faults)} faults"
    )


def write_markdown(outcomes: Sequence[Outcome], page: Path) -> None:
    """Replace the table between the page's markers.

    Raises:
        ValueError: the page has no markers.
    """
    text = page.read_text()
    before, found, rest = text.partition(_BEGIN)
    _, closed, after = rest.partition(_END)
    if not (found and closed):
        raise ValueError(f"{page} has no lines {_BEGIN!r} and {_END!r}")
    page.write_text("\n".join([before + _BEGIN, "", *markdown(outcomes), "", _END + after]))


def markdown(outcomes: Sequence[Outcome]) -> list[str]:
    """The lines of the table, sorted by model type, and the summary."""
    lines = [
        "| model type | what is special | engine | worst error | context | batch-invariant |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for outcome in sorted(outcomes, key=lambda one: (one.entry.model_type, one.entry.name)):
        entry = outcome.entry
        engine = outcome.engine or ("refused" if outcome.refusal else "fails")
        cells = [
            f"`{entry.model_type}`",
            entry.exercises,
            engine,
            _error(outcome),
            str(outcome.context or ""),
            _invariant(outcome),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", summary(outcomes) + "."]


def _crashed(outcome: Outcome) -> bool:
    return outcome.engine is None and outcome.refusal is None


def _error(outcome: Outcome) -> str:
    return "" if outcome.error is None else f"{outcome.error:.1e}"


def _invariant(outcome: Outcome) -> str:
    return {None: "", True: "yes", False: "no"}[outcome.invariant]
