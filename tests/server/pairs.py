"""Pairwise coverage: few cases that combine every two choices."""

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product

Case = dict[str, object]

_TRIES = 60


def pairwise_cases(
    factors: Mapping[str, Sequence[object]], possible: Callable[[Case], bool]
) -> list[Case]:
    """Cases of one choice per factor, such that every pair of choices is in some case.

    Pairs that no possible case has are exempt.
    """
    every = [
        (one, i, other, j)
        for one, other in combinations(factors, 2)
        for i, j in product(range(len(factors[one])), range(len(factors[other])))
    ]
    draw = random.Random(0)  # noqa: S311 - the same cases every time
    left = dict.fromkeys(every)
    cases = []
    for one, i, other, j in every:
        best: tuple[set[tuple[str, int, str, int]], Case] | None = None
        for _ in range(_TRIES if (one, i, other, j) in left else 0):
            chosen = {name: draw.randrange(len(choices)) for name, choices in factors.items()}
            chosen |= {one: i, other: j}
            case = {name: factors[name][choice] for name, choice in chosen.items()}
            pairs = {(a, chosen[a], b, chosen[b]) for a, b in combinations(factors, 2)}
            closed = pairs & left.keys()
            if possible(case) and (best is None or len(closed) > len(best[0])):
                best = closed, case
        if best is not None:
            cases.append(best[1])
            for pair in best[0]:
                del left[pair]
    return cases
