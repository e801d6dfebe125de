"""Write `presets.safetensors`: the vectors of a server before requests named pools and layers.

git worktree add ../before e12c83f~1
cd ../before && make install && .venv/bin/actvec-server --port 50051
python tests/client/api/before/presets.py 127.0.0.1:50051
"""

import sys
from pathlib import Path

from safetensors.numpy import save_file

from actvec.client import Client

TEXTS = (
    "a",
    "The tide comes back twice a day.",
    "Nobody was on the platform. " * 12,
    "Ein Schiff fährt um sieben, 船は七時に出る. " * 60,
)
STORED = Path(__file__).with_name("presets.safetensors")


def main(target: str) -> None:
    """Ask a server for the presets of each text, and store them."""
    with Client(target) as client:
        vectors = {
            f"{mode}-{number}": client.extract(text, mode=mode).values
            for mode in ("short", "long")
            for number, text in enumerate(TEXTS)
        }
    save_file(vectors, STORED)


if __name__ == "__main__":
    main(sys.argv[1])
