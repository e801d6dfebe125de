"""`actvec extract`: one text to one vector on disk."""

import json
import sys
from pathlib import Path

import click

from actvec.client.cli.options import Server, json_option, talks_to_server, vector_options
from actvec.client.documents import read_text
from actvec.client.files import VectorFolder
from actvec.client.vectors import Document, Mode, Truncation


@click.command
@click.argument("stdin", metavar="[-]", type=click.Choice(["-"]), required=False)
@click.option("--text", help="The text itself.")
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    help="A file with the text in UTF-8; its name without the suffix is the document's id.",
)
@vector_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="here",
    help="The folder to write to; created where it is missing.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds to wait for the answer.",
)
@json_option
@talks_to_server
def extract(
    server: Server,
    *,
    stdin: str | None,
    text: str | None,
    path: Path | None,
    mode: Mode,
    center: str | None,
    truncation: Truncation,
    bos: bool | None,
    out: Path,
    timeout: float,
    as_json: bool,
) -> None:
    """Turn one text (--text, --file, or - for standard input) into a vector on disk.

    Writes activation_vector_MODE_NAME.safetensors and activation_vector_MODE_NAME_metadata.json.
    NAME is the file's name without its suffix, or begins the text's SHA-256. The vector of another
    text that is there under the same name is not replaced: the command fails.
    """
    document = _document(stdin, text, path)
    folder = VectorFolder(out)
    with server.connect(timeout=timeout) as client:
        vector = client.extract(
            document, mode=mode, center=center, truncation=truncation, prepend_bos=bos
        )
    saved = folder.save(vector)
    if as_json:
        paths = {
            "vector_path": str(saved.vector_path),
            "metadata_path": str(saved.metadata_path),
        }
        click.echo(json.dumps(saved.metadata | paths, indent=2))
        return
    cut = f" of {vector.tokens}" if vector.tokens_used < vector.tokens else ""
    centered = f", centred by {vector.stamp.corpus_mean_id}" if vector.stamp.centered else ""
    click.echo(
        f"{saved.vector_path}: {len(vector.values)} numbers of {vector.tokens_used}{cut} tokens,"
        f" norm {vector.norm:.2f}{centered}"
    )


def _document(stdin: str | None, text: str | None, path: Path | None) -> Document:
    if sum(source is not None for source in (stdin, text, path)) != 1:
        raise click.UsageError("give one text: --text, --file, or - for standard input")
    if text is not None:
        return Document("", text)
    try:
        if path is not None:
            return Document(path.stem, read_text(path))
        return Document("", sys.stdin.buffer.read().decode())
    except UnicodeDecodeError as error:
        raise click.UsageError(f"standard input is not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise click.UsageError(f"{path}: {error}") from None
