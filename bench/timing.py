"""Taking times, and the rate that no engine can exceed."""

import time
from collections.abc import Callable

import torch

from bench.workload import Shape


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes, which ends with its results on the host."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def matrix_rate(shape: Shape, dtype: torch.dtype, device: str, rows: int) -> float:
    """FLOP/s of the products of one block's four linear layers, of that many rows, back to back."""
    width = shape.hidden
    sizes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    products = [
        (
            torch.randn(rows, inner, device=device, dtype=dtype),
            torch.randn(inner, outer, device=device, dtype=dtype),
        )
        for inner, outer in sizes
    ]

    def multiply(repeats: int) -> None:
        for _ in range(repeats):
            for left, right in products:
                left @ right
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)

    block = 24 * width**2 * rows
    multiply(1)
    # Some tenths of a second, by a first guess of the rate.
    repeats = max(3, round(0.3 / timed(lambda: multiply(1))))
    return repeats * block / timed(lambda: multiply(repeats))
