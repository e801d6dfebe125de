"""`actvec check`: is a folder of vectors what it says?"""

import re
from dataclasses import asdict, replace
from pathlib import Path

import click

from actvec.client.bulk.manifest import Manifest
from actvec.client.cli.commands import Numbers, Verb
from actvec.client.cli.findings.folder import reads_vectors
from actvec.client.cli.options import Input, json_option, reads_input
from actvec.client.cli.printing import print_json, print_rows, say
from actvec.client.cli.server import Connect, talks_to_server
from actvec.client.findings import FolderCheck
from actvec.client.findings import check as check_folder
from actvec.client.records.stamp import Stamp
from actvec.client.stored.vectors import StoredVectors

_COMMIT = re.compile(r"[0-9a-f]{40}")


@click.command(cls=Verb)
@reads_vectors(several=False)
@reads_input(required=False)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=8,
    help="Compute the vectors of this many documents again.",
)
@click.option("--seed", type=int, default=0, help="The seed that selects these documents.")
@click.option(
    "--tolerance",
    type=Numbers(min=0),
    help="The largest accepted error, as a fraction of the norm.  [default: 1e-4 for a model in"
    " float32, 0.02 for one in 16 bits, and 0.001 more for files in float16]",
)
@json_option
@talks_to_server
def check(
    server: Connect,
    *,
    vectors: StoredVectors,
    source: Input,
    rows: int,
    seed: int,
    tolerance: float | None,
    as_json: bool,
) -> None:
    """Check a folder of vectors: compute some of them again, on any server.

    `check` compares the files with their checksums, and the vectors of some documents with those
    that the server computes now. INPUT is the corpus of FOLDER; by default the one that
    the folder's manifest names. If the server has another model or other settings than the
    stamp of FOLDER, `check` prints the field that differs, and the command that starts the right
    server. The exit code is 1 if anything does not agree.
    """
    documents = replace(source, path=source.path or _source(vectors)).open()
    with server.connect() as client:
        found = check_folder(vectors, documents, client, count=rows, seed=seed, tolerance=tolerance)
    if as_json:
        record = asdict(found) | {
            "altered": {str(path): reason for path, reason in found.altered.items()},
            "passed": found.passed,
            "server": server_command(vectors.stamp),
        }
        print_json(record)
    else:
        _print(found, vectors.stamp)
    if not found.passed:
        raise click.exceptions.Exit(1)


def server_command(stamp: Stamp) -> str:
    """The command of a server that makes vectors of a stamp."""
    options = ["actvec-server", "--model", stamp.model]
    if _COMMIT.fullmatch(stamp.revision):
        options += ["--revision", stamp.revision]
    layers = ",".join(map(str, stamp.layers))
    return " ".join([*options, "--dtype", stamp.dtype, "--layers", layers, "--hook", stamp.hook])


def _source(vectors: StoredVectors) -> Path:
    """The corpus that a folder's manifest names.

    Raises:
        click.UsageError: it names none that is there.
    """
    path = vectors.path
    manifest = None if path is None or not path.is_dir() else Manifest.load(path)
    named = None if manifest is None or manifest.input is None else manifest.input.get("path")
    if named is None or not Path(named).exists():
        where = "names no corpus" if named is None else f"names {named}, which is not there"
        raise click.UsageError(f"{path} {where}; give INPUT")
    return Path(named)


def _print(found: FolderCheck, stamp: Stamp) -> None:
    agreeing = sum(row.agrees for row in found.rows)
    if found.stamp:
        say(f"NOT CHECKED: the folder (there) and the server (here) differ: {found.stamp}")
        say(f"This stamp needs: {server_command(stamp)}")
    else:
        verdict = "AGREE" if found.passed else "do NOT agree"
        say(
            f"{agreeing} of {len(found.rows)} vectors agree with the server's, to"
            f" {found.tolerance:g} of their norms: {verdict}"
        )
    for path, reason in found.altered.items():
        say(f"{path} {reason}")
    if found.rows:
        print_rows(
            ["document", "", "error", "worst in"],
            [
                [row.id, "NOT MADE", "", row.reason]
                if row.error is None
                else [row.id, "agrees" if row.agrees else "DIFFERS", f"{row.error:.1e}", row.worst]
                for row in found.rows
            ],
            names=2,
        )
