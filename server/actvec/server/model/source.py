"""The directory to load a model from, and its revision."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from actvec.server.errors import StartupError
from actvec.server.model.demo import write_demo_model
from actvec.server.model.hub import hub_snapshot, is_hub_id, refuse_adapter

_SUFFIXES = {".json", ".safetensors", ".bin", ".model", ".txt"}

# Bytes that one thread hashes, and bytes per read.
_PIECE_BYTES = 1 << 26
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """Where to load a model from.

    Attributes:
        name: Its name in a stamp.
        directory: A local directory in transformers' layout.
        commit: The hub's commit; None if the directory is not from the hub.
    """

    name: str
    directory: str
    commit: str | None = None

    def revision(self) -> str:
        """The hub's commit, or `sha256:` and the hash of a directory's files."""
        return self.commit or directory_revision(Path(self.directory))


@contextmanager
def located(model: str, revision: str | None) -> Iterator[Source]:
    """Provide the directory of a model; a hub id's snapshot is downloaded if necessary.

    Args:
        model: `demo`, a hub id, or a local directory in transformers' layout.
        revision: Branch, tag or commit on the hub; None for its default branch.

    Raises:
        StartupError: the model does not exist, or cannot be read.
    """
    path = Path(model).expanduser()
    if model != "demo" and not path.exists() and is_hub_id(model):
        snapshot = hub_snapshot(model, revision)
        yield Source(model, str(snapshot.directory), snapshot.commit)
        return
    if revision is not None:
        raise StartupError(
            f"model {model!r} is not on the hub, so it has no revision {revision!r}; name none"
        )
    if model == "demo":
        with tempfile.TemporaryDirectory(prefix="actvec-demo-") as directory:
            write_demo_model(Path(directory))
            yield Source("demo", directory)
        return
    if not path.is_dir():
        raise StartupError(f"no model directory {model!r}")
    if not (path / "config.json").is_file():
        refuse_adapter(model, path)
        raise StartupError(f"{model!r} is not a model directory: it has no config.json")
    if not os.access(path / "config.json", os.R_OK):
        raise StartupError(f"cannot read {path / 'config.json'}: permission denied")
    yield Source(path.resolve().name, str(path))


def directory_revision(directory: Path) -> str:
    """Hash the names and contents of a model's files; return `sha256:` and the digest.

    Contents are hashed in pieces of 64 MiB, as many at a time as there are processors: a single
    thread would need longer for the weights of a large model than loading them takes.
    """
    paths = sorted(path for path in directory.iterdir() if path.suffix in _SUFFIXES)
    pieces = [
        (path, start) for path in paths for start in range(0, path.stat().st_size, _PIECE_BYTES)
    ]
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as threads:
        for (path, start), piece in zip(pieces, threads.map(_hash, pieces), strict=True):
            digest.update(f"{path.name}\0{start}\0{piece}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _hash(piece: tuple[Path, int]) -> str:
    path, start = piece
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        for _ in range(0, _PIECE_BYTES, _READ_BYTES):
            digest.update(file.read(_READ_BYTES))
    return digest.hexdigest()
