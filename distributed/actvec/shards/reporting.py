"""Reports of the programs that compute without a server: their output and exit code."""

from typing import Any

import click

from actvec.client.cli.printing import note, print_result
from actvec.client.records.means import CorpusMean


def report_vectors(report: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print the outcome of a job; the program ends with 1 if documents failed.

    Args:
        report: For programs; its `failed` is the number of failed documents.
        text: For people.
        as_json: Whether to print the report.

    Raises:
        click.exceptions.Exit: documents failed.
    """
    print_result(report, text, as_json=as_json, indent=None)
    if report["failed"]:
        raise click.exceptions.Exit(1)


def report_mean(mean: CorpusMean, place: dict[str, str], text: str, *, as_json: bool) -> None:
    """Print a mean and the documents it skipped; the program ends with 1 if there are any.

    Args:
        mean: Its record.
        place: The path of its file or folder under a key, for programs.
        text: For people.
        as_json: Whether to print the record.

    Raises:
        click.exceptions.Exit: documents were skipped.
    """
    print_result(mean.to_dict() | place, text, as_json=as_json, indent=None)
    for one in mean.skipped:
        note(
            f"skipped for {one.reason}: {one.documents:,}; the first is {one.first_id}:"
            f" {one.first_message}"
        )
    if mean.skipped:
        raise click.exceptions.Exit(1)
