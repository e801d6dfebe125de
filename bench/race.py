"""Runs contenders in turn over the same documents, and prints a table of their speeds."""

import statistics
from collections.abc import Sequence

import torch

from bench.agreement import check_agreement
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

    Each runs once before, and its vectors are compared with the first one's. The limit is the
    fastest rate of matrix products of `rows` rows, measured between the contenders.
    """
    reference = contenders[0].run(documents)
    for contender in contenders[1:]:
        pools = contender.run(documents)
        if contender.comparable:
            check_agreement(contender.name, pools, reference, dtype)
    rates: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for turn in range(rounds):
        # Forwards and backwards in turn, so that no contender gains from a drift over time.
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
