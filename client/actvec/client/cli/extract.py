"""`actvec extract`: one text to one vector on disk."""

from pathlib import Path

import click

from actvec.client.bulk.sinks.single_files import FileSink
from actvec.client.cli.commands import Verb
from actvec.client.cli.options import json_option, read_document, timeout_option
from actvec.client.cli.pairs import tell_mean
from actvec.client.cli.paths import AnyPath
from actvec.client.cli.printing import print_result
from actvec.client.cli.server import Connect, talks_to_server
from actvec.client.cli.settings import Asked, vector_options
from actvec.client.documents.opening import standard_input
from actvec.client.lock import visiting
from actvec.client.records.settings import VectorSettings
from actvec.client.records.vectors import Document


@click.command(cls=Verb)
@click.argument("stdin", metavar="[-]", type=click.Choice(["-"]), required=False)
@click.option("--text", help="The text itself.")
@click.option(
    "--file",
    "path",
    type=AnyPath(),
    help="A file with the text in UTF-8; its name without the suffix becomes the document's id.",
)
@vector_options()
@click.option(
    "--out",
    type=AnyPath(),
    default=Path(),
    show_default="the current folder",
    help="The folder to write to; created if missing.",
)
@timeout_option("Give up if there is no answer after this long.")
@json_option
@talks_to_server
def extract(
    server: Connect,
    *,
    stdin: str | None,
    text: str | None,
    path: Path | None,
    asked: Asked[VectorSettings],
    out: Path,
    timeout: float,
    as_json: bool,
) -> None:
    """Turn one text (--text, --file, or - for standard input) into a vector on disk.

    Writes activation_vector_MODE_NAME.safetensors and activation_vector_MODE_NAME_metadata.json.
    NAME is the file's name without its suffix or, for a bare text, the first digits of its SHA-256.
    If a file of another text has the same NAME, the command fails and replaces nothing. It also
    fails while a job of `stream` writes to the folder.
    """
    document = _document(stdin, text, path)
    folder = FileSink(out)
    with server.connect(timeout=timeout) as client:
        vector = client.extract(document, asked.of(client))
        mean = client.get_mean(vector.stamp.corpus_mean_id) if vector.stamp.centered else None
    with visiting(out):
        saved = folder.save(vector)
    if mean is not None:
        tell_mean(mean)
    paths = {"vector_path": str(saved.vector_path), "metadata_path": str(saved.metadata_path)}
    cut = f" of {vector.tokens}" if vector.tokens_used < vector.tokens else ""
    print_result(
        saved.metadata | paths,
        f"{saved.vector_path}: {len(vector.values)} numbers of {vector.tokens_used}{cut} tokens,"
        f" norm {vector.norm:.2f}{', centered' if mean else ''}",
        as_json=as_json,
    )


def _document(stdin: str | None, text: str | None, path: Path | None) -> Document:
    if sum(source is not None for source in (stdin, text, path)) != 1:
        raise click.UsageError("give one text: --text, --file, or - for standard input")
    if text is not None:
        return Document("", text)
    if path is not None:
        return read_document(path, path.stem)
    try:
        return Document("", standard_input().read().decode())
    except UnicodeDecodeError as error:
        raise click.UsageError(f"standard input is not UTF-8 at byte {error.start}") from None
