"""Contenders in turn over the same documents, and a table of how they did."""

import statistics
from collections.abc import Sequence

import numpy as np
import torch

from actvec.server.pooler import Pools
from bench.contenders import Contender
from bench.timing import matrix_rates, timed
from bench.workload import Ids, Shape, flops


def race(
    contenders: Sequence[Contender],
    documents: Sequence[Ids],
    *,
    shape: Shape,
    layers: tuple[int, ...],
    dtype: str,
    device: str,
    rows: int,
    rounds: int,
) -> None:
    """Time the contenders in turn and print a Markdown table against the limit and the first.

    Before that each runs once, and its vectors are compared with the first one's. The limit is the
    fastest rate of matrix products of `rows` rows, measured between the contenders.
    """
    reference = contenders[0].run(documents)
    for contender in contenders[1:]:
        pools = contender.run(documents)
        if contender.comparable:
            _check_agreement(contender, pools, reference)
    rates: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for turn in range(rounds):
        # There and back: what drifts with time is no contender's advantage.
        for contender in contenders if turn % 2 == 0 else reversed(contenders):
            for way, rate in matrix_rates(shape, getattr(torch, dtype), device, rows).items():
                rates.setdefault(way, []).append(rate)
            seconds[contender.name].append(timed(lambda: contender.run(documents)))  # noqa: B023
    lengths = [len(ids) for ids in documents]
    tokens = sum(lengths)
    work = flops(shape, layers, lengths)
    limits = {way: work / statistics.median(values) for way, values in rates.items()}
    limit = min(limits.values())
    print(
        f"{shape.name} shape, {dtype}, {len(documents)} documents of {tokens} tokens, layers "
        f"{layers}, torch {torch.__version__} on {device}, {torch.get_num_threads()} threads, "
        f"median of {rounds} interleaved rounds; matrix products run at up to "
        f"{work / limit / 1e12:.3g} TFLOP/s\n"
    )
    print("| contender | tokens/s | of the limit | actvec is faster by |")
    print("| --- | ---: | ---: | ---: |")
    for way, least in limits.items():
        print(
            f"| these FLOPs at the rate of {way} | {tokens / least:.0f} | {limit / least:.2f} | |"
        )
    first = statistics.median(seconds[contenders[0].name])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"| {name} | {tokens / median:.0f} | {limit / median:.2f} | {median / first:.2f} |")


def _check_agreement(
    contender: Contender, pools: Sequence[Pools], reference: Sequence[Pools]
) -> None:
    """Fail where a contender computed something else: its speed would mean nothing."""
    for theirs, ours in zip(pools, reference, strict=True):
        if theirs.shape != ours.shape:
            raise SystemExit(f"{contender.name} makes {theirs.shape} where we make {ours.shape}")
        cosine = np.vdot(theirs, ours) / (np.linalg.norm(theirs) * np.linalg.norm(ours))
        if cosine < 0.999:
            raise SystemExit(f"{contender.name} disagrees with the first: cosine {cosine:.5f}")
