"""`python -m bench.sinks`: the cost of writing vectors to disk, in each format."""

import hashlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import get_args

import numpy as np

from actvec.client import Pool, Stamp, Vector
from actvec.client.bulk import Format, Layout
from actvec.client.bulk.checksums import Checksums
from bench.arguments import add_rounds, arguments

STAMP = Stamp(
    model="bench",
    revision="",
    tokenizer_sha256="",
    dtype="bfloat16",
    layers=(25, 26, 27),
    hook="resid_post",
    prepend_bos=True,
    mode="short",
    pools=(Pool("exp_933", 0.067),),
    truncation="error",
    corpus_mean_id="",
    corpus_mean_sha256="",
    actvec_version="",
)


def make_vectors(count: int, width: int) -> list[Vector]:
    """Make vectors of Gaussian numbers, `[width]` float32."""
    rng = np.random.default_rng(0)
    return [
        Vector(
            values=rng.normal(size=width).astype(np.float32),
            id=f"document-{index}",
            tokens=500,
            tokens_used=500,
            truncated=False,
            smallest_count=0,
            stamp=STAMP,
            text_sha256=hashlib.sha256(str(index).encode()).hexdigest(),
            index=index,
        )
        for index in range(count)
    ]


def write(layout: Layout, vectors: list[Vector], folder: Path) -> float:
    """Seconds until all vectors are durable."""
    started = time.perf_counter()
    checksums = Checksums(folder / "checksums.jsonl")
    with layout.open(folder, run="bench", resume=False, checksums=checksums) as sink:
        for vector in vectors:
            sink.write(vector)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print a Markdown table."""
    parser = arguments("sinks", __doc__)
    parser.add_argument("--vectors", type=int, default=2000, help="vectors per round")
    parser.add_argument("--width", type=int, default=5120, help="numbers of a vector")
    add_rounds(parser, 3)
    options = parser.parse_args()

    vectors = make_vectors(options.vectors, options.width)
    seconds: dict[Format, list[float]] = {layout: [] for layout in get_args(Format)}
    sizes: dict[Format, int] = {}
    for _ in range(options.rounds):
        for layout, times in seconds.items():
            with tempfile.TemporaryDirectory() as scratch:
                times.append(write(Layout(layout), vectors, Path(scratch)))
                files = [path for path in Path(scratch).rglob("*") if path.is_file()]
                sizes[layout] = sum(path.stat().st_size for path in files)

    print(
        f"{options.vectors} vectors of {options.width} float16 numbers, median of"
        f" {options.rounds} interleaved rounds\n"
    )
    print("| format | vectors/s | bytes per vector |")
    print("| --- | ---: | ---: |")
    for layout, times in seconds.items():
        rate = options.vectors / statistics.median(times)
        print(f"| {layout} | {rate:,.0f} | {sizes[layout] / options.vectors:,.0f} |")


if __name__ == "__main__":
    main()
