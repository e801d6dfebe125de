"""`python -m bench.growth`: does speed hold for more documents, and for longer ones?"""

import statistics

import numpy as np
import torch

from actvec.client import Client
from actvec.server.engine.memory import DEFAULT_STEP_TOKENS
from actvec.server.engine.packed import PackedEngine
from actvec.server.heap import keep_freed_memory
from bench.arguments import add_rounds, add_shape, arguments
from bench.contenders import Packed
from bench.serving import serving
from bench.timing import matrix_rates, timed
from bench.workload import SHAPES, Shape, Workload, flops


def by_length(shape: Shape, lengths: list[int], tokens: int, rounds: int) -> None:
    """Measure the engine over documents of one length after the other, in turn."""
    engine = PackedEngine(Workload(shape, 1).load("float32"))
    packed = Packed(engine, DEFAULT_STEP_TOKENS["cpu"])
    layers = engine.card.layers
    corpora = {n: [np.ones(n, dtype=np.int64)] * (tokens // n) for n in lengths}
    seconds: dict[int, list[float]] = {length: [] for length in lengths}
    rates = []
    for _ in range(rounds):
        for length, corpus in corpora.items():
            rates.append(max(matrix_rates(shape, torch.float32, "cpu", rows=2048).values()))
            seconds[length].append(timed(lambda: packed.run(corpus)))  # noqa: B023
    rate = statistics.median(rates)
    print(f"\n{shape.name} shape, float32, {tokens} tokens in documents of each length\n")
    print("| tokens of a document | tokens/s | of the limit |")
    print("| ---: | ---: | ---: |")
    for length, corpus in corpora.items():
        median = statistics.median(seconds[length])
        limit = flops(shape, layers, [length] * len(corpus)) / rate
        print(f"| {length} | {length * len(corpus) / median:.0f} | {limit / median:.2f} |")


def by_count(shape: Shape, counts: list[int], rounds: int) -> None:
    """Measure one stream of few documents, and of many."""
    workload = Workload(shape, max(counts), median=24)
    # The same mixture in each corpus, so that only its size differs.
    hundred = workload.texts[: min(counts)]
    tokens = sum(len(ids) for ids in workload.documents[: min(counts)])
    print(f"\n{shape.name} shape, float32, one StreamVectors call of short documents\n")
    print("| documents | tokens/s |")
    print("| ---: | ---: |")
    with serving(workload.directory, "--dtype=float32") as server, Client(server.target) as client:

        def stream(repeats: int, calls: int = 1) -> None:
            for _ in range(calls):
                texts = (text for _ in range(repeats) for text in hundred)
                for _ in client.stream(texts, mode="short"):
                    pass

        stream(1)
        seconds: dict[int, list[float]] = {count: [] for count in counts}
        for _ in range(rounds):
            for count in counts:
                repeats = count // len(hundred)
                # Small corpora repeat, up to a tenth of the largest, so that noise averages out.
                calls = max(1, max(counts) // count // 10)
                seconds[count].append(timed(lambda: stream(repeats, calls)) / calls)  # noqa: B023
    for count in counts:
        rate = tokens * (count // len(hundred)) / statistics.median(seconds[count])
        print(f"| {count} | {rate:.0f} |")


def main() -> None:
    """Measure and print Markdown tables."""
    parser = arguments("growth", __doc__)
    add_shape(parser, SHAPES)
    parser.add_argument(
        "--lengths",
        type=int,
        nargs="+",
        default=[32, 64, 128, 256, 512, 1024, 2048],
        help="tokens of a document, each measured",
    )
    parser.add_argument(
        "--tokens", type=int, default=16_384, help="tokens of all documents of one length"
    )
    parser.add_argument(
        "--counts",
        type=int,
        nargs="+",
        default=[100, 1000, 10_000],
        help="documents of a stream, each measured",
    )
    add_rounds(parser, 3)
    options = parser.parse_args()
    keep_freed_memory()
    by_length(SHAPES[options.shape], options.lengths, options.tokens, options.rounds)
    by_count(SHAPES[options.shape], options.counts, options.rounds)


if __name__ == "__main__":
    main()
