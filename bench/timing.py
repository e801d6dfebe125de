"""Timing, and the rate that no engine can exceed."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from actvec.server.model.packed.linear import PackedLinear, has_kernels
from bench.workload import Shape


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call, which ends with its results on the host."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def matrix_rates(shape: Shape, dtype: torch.dtype, device: str, rows: int) -> dict[str, float]:
    """FLOP/s of the products of one block's four linear layers, with `rows` rows, back to back.

    Measured as torch computes them, and on a CPU also with weights laid out by oneDNN. The faster
    rate is the machine's limit.
    """
    width = shape.hidden
    sizes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    factors = [torch.randn(rows, inner, device=device, dtype=dtype) for inner, _ in sizes]
    with torch.device(device):
        linears = [
            nn.Linear(*size, bias=False, dtype=dtype).requires_grad_(False) for size in sizes
        ]
    ways: dict[str, Sequence[nn.Module]] = {"torch's products": linears}
    if torch.device(device).type == "cpu" and has_kernels(dtype):
        ways["oneDNN's, weights laid out before"] = [PackedLinear(linear) for linear in linears]

    def multiply(layers: Sequence[nn.Module], repeats: int) -> None:
        for _ in range(repeats):
            for layer, factor in zip(layers, factors, strict=True):
                layer(factor)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)

    def rate(layers: Sequence[nn.Module]) -> float:
        multiply(layers, 1)
        # Some tenths of a second, by a first estimate of the rate.
        repeats = max(3, round(0.2 / timed(lambda: multiply(layers, 1))))
        return repeats * 24 * width**2 * rows / timed(lambda: multiply(layers, repeats))

    return {name: rate(layers) for name, layers in ways.items()}
