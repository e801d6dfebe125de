"""What a model that was loaded from a directory is known by: the hash over its files."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_SUFFIXES = {".json", ".safetensors", ".bin", ".model", ".txt"}

# Of a file, hashed by one thread, and read at a time.
_PIECE_BYTES = 1 << 26
_READ_BYTES = 1 << 20


def directory_revision(directory: Path) -> str:
    """`sha256:` and the hash over the names and contents of what a model is loaded from.

    Contents are hashed in pieces of 64 MiB, as many at a time as there are processors: one thread
    would take longer for the weights of a large model than loading them takes.
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
