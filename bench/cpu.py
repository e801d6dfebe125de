"""`python -m bench.cpu`: the engine against its peers and the limit, on this machine's CPU."""

import argparse
import statistics
from collections.abc import Sequence

import numpy as np
import torch

from actvec.server.engine import PackedEngine
from actvec.server.memory import DEFAULT_STEP_TOKENS, keep_freed_memory
from actvec.server.pooler import Pools
from bench.contenders import Contender, Lens, Packed, Padded, Served
from bench.timing import timed
from bench.workload import SHAPES, Shape, Workload


def matrix_rate(shape: Shape, dtype: torch.dtype, rows: int) -> float:
    """FLOP/s of the products of one block's four linear layers, of that many rows, back to back."""
    width = shape.hidden
    sizes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    products = [
        (torch.randn(rows, inner).to(dtype), torch.randn(inner, outer).to(dtype))
        for inner, outer in sizes
    ]

    def multiply(repeats: int) -> None:
        for _ in range(repeats):
            for left, right in products:
                left @ right

    multiply(1)
    repeats = max(1, round(1e11 / (24 * width**2 * rows)))
    seconds = timed(lambda: multiply(repeats))
    return repeats * 24 * width**2 * rows / seconds


def check_agreement(name: str, pools: Sequence[Pools], reference: Sequence[Pools]) -> None:
    """Fail where a contender computed something else: its speed would mean nothing."""
    for ours, theirs in zip(pools, reference, strict=True):
        cosine = np.vdot(ours, theirs) / (np.linalg.norm(ours) * np.linalg.norm(theirs))
        if cosine < 0.999:
            raise SystemExit(f"{name} disagrees with the first contender: cosine {cosine:.5f}")


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="70m")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--documents", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step-tokens", type=int, default=DEFAULT_STEP_TOKENS["cpu"])
    parser.add_argument("--only-packed", action="store_true", help="leave the peers out")
    options = parser.parse_args()
    keep_freed_memory()

    workload = Workload(SHAPES[options.shape], options.documents)
    engine = PackedEngine(workload.load(options.dtype))
    layers = engine.card.layers
    packed = Packed(engine, options.step_tokens)
    contenders: list[Contender] = [
        packed,
        Packed(engine, options.step_tokens, mean=True),
        Served(workload, options.dtype, options.step_tokens),
    ]
    if not options.only_packed:
        contenders += [
            Padded(workload, options.dtype, batch=8, by_length=True),
            Padded(workload, options.dtype, batch=8),
            Lens(workload, options.dtype, filtered=True),
            Lens(workload, options.dtype, filtered=False),
        ]
    reference = packed.run(workload.documents)
    for contender in contenders[1:]:
        check_agreement(contender.name, contender.run(workload.documents), reference)

    dtype = getattr(torch, options.dtype)
    rates: list[float] = []
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(options.rounds):
        for contender in contenders:
            rates.append(matrix_rate(workload.shape, dtype, 2048))
            seconds[contender.name].append(timed(lambda: contender.run(workload.documents)))  # noqa: B023
    rate = statistics.median(rates)
    floor = workload.flops(layers) / rate

    print(
        f"{options.shape} shape, {options.dtype}, {len(workload.documents)} documents of "
        f"{workload.tokens} tokens, layers {layers}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, median of {options.rounds} interleaved rounds; matrix "
        f"products run at {rate / 1e9:.0f} GFLOP/s\n"
    )
    print("| contender | tokens/s | of the limit | actvec is faster by |")
    print("| --- | ---: | ---: | ---: |")
    print(f"| the limit: these FLOPs at the matrix rate | {workload.tokens / floor:.0f} | 1.00 | |")
    ours = statistics.median(seconds[packed.name])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(
            f"| {name} | {workload.tokens / median:.0f} | {floor / median:.2f} "
            f"| {median / ours:.2f} |"
        )


if __name__ == "__main__":
    main()
