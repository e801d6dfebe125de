"""`actvec stream`: the vectors of many documents, on disk."""

import json
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import click

from actvec.client.cli.options import Server, json_option, talks_to_server, vector_options
from actvec.client.cli.progress import Tally, show_progress
from actvec.client.documents import open_documents
from actvec.client.errors import ActvecError
from actvec.client.files import VectorFolder
from actvec.client.vectors import Failure, Mode, Result, Truncation, Vector


@click.command
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@vector_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder to write to; created where it is missing.",
)
@click.option(
    "--window",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Documents in flight at a time.",
)
@click.option(
    "--retry-for",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Seconds without progress after which a broken connection is given up.",
)
@json_option
@talks_to_server
def stream(
    server: Server,
    *,
    source: Path,
    mode: Mode,
    center: str | None,
    truncation: Truncation,
    out: Path,
    window: int,
    retry_for: float,
    as_json: bool,
) -> None:
    """Turn the documents of INPUT into vectors on disk.

    INPUT is a folder of .txt files, or a .jsonl or .jsonl.gz file with a `text` and, where you
    like, an `id` a line. Documents that fail are listed in errors.jsonl in the output folder, the
    others are kept, and the exit code is 1.
    """
    documents = open_documents(source)
    folder = VectorFolder(out)
    tally = Tally()
    try:
        with (
            server.connect(retry_for=retry_for) as client,
            ErrorLog(folder.path / "errors.jsonl") as errors,
            show_progress(documents.count) as progress,
        ):
            for result in client.stream(
                documents, mode=mode, center=center, truncation=truncation, window=window
            ):
                failure = _keep(result, folder, tally)
                if failure is not None:
                    errors.write(failure)
                progress.update(tally)
    except (ActvecError, OSError):
        if tally.documents:
            click.echo(f"Stopped after {tally}", err=True)
        raise
    _summarize(tally, folder.path, errors, as_json=as_json)
    if tally.failed:
        raise click.exceptions.Exit(1)


class ErrorLog:
    """A file of one JSON object a failed document; there is none where none failed."""

    def __init__(self, path: Path) -> None:
        """Forget an earlier run's.

        Raises:
            OSError: it cannot be removed.
        """
        self.path = path
        self._file: TextIO | None = None
        path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def empty(self) -> bool:
        """Whether nothing failed."""
        return self._file is None

    def write(self, failure: Failure) -> None:
        """Add one, at once, so that a job that is killed has told."""
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8")
        self._file.write(json.dumps(failure.to_dict()) + "\n")
        self._file.flush()


def _keep(result: Result, folder: VectorFolder, tally: Tally) -> Failure | None:
    """Write a vector; what became of a document that has none, or that cannot be written."""
    if isinstance(result, Vector):
        try:
            folder.save(result)
        except ActvecError as error:
            result = Failure.of(error, result.id, result.index)
        else:
            tally.vectors += 1
            tally.tokens += result.tokens
            return None
    tally.failed += 1
    return result


def _summarize(tally: Tally, out: Path, errors: ErrorLog, *, as_json: bool) -> None:
    if as_json:
        summary = {
            "vectors": tally.vectors,
            "failed": tally.failed,
            "tokens": tally.tokens,
            "seconds": round(tally.seconds, 3),
            "out": str(out),
            "errors": None if errors.empty else str(errors.path),
        }
        click.echo(json.dumps(summary))
        return
    click.echo(f"{tally}; in {out}")
    if not errors.empty:
        click.echo(f"The documents that failed are listed in {errors.path}", err=True)
