"""Servers and clients killed, connections cut, stalled and half closed, at random: nothing is lost.

    pytest tests/faults -s --faults 200 --fault-seed 1

is the long form; `make soak` runs it.
"""

import collections
import random

import pytest

from tests.faults.rounds import DOCUMENTS, WEIGHTS, run_round
from tests.faults.supervisors import ServerSupervisor


@pytest.mark.timeout(0)
def test_nothing_is_lost_whatever_breaks(pytestconfig, tmp_path, start_server, demo_server):
    wanted, seed = pytestconfig.getoption("--faults"), pytestconfig.getoption("--fault-seed")
    chance = random.Random(seed)  # noqa: S311 - faults, not secrets
    server = ServerSupervisor(start_server, tmp_path / "data", "--commit-seconds=0.2")
    counts: collections.Counter[str] = collections.Counter()
    rounds = runs = 0
    try:
        while counts.total() < wanted:
            rounds += 1
            faults, started = run_round(
                rounds,
                chance=chance,
                most=wanted - counts.total(),
                weights=WEIGHTS,
                server=server,
                undisturbed=demo_server,
                directory=tmp_path,
                # A short form has short jobs: faults follow each other closely.
                longest=2 if wanted > 10 else 0.5,
            )
            counts += faults
            runs += started
    finally:
        server.close()
    print(
        f"\nseed {seed}: {counts.total()} faults in {rounds} jobs of {DOCUMENTS} documents: "
        + ", ".join(f"{count} x {name}" for name, count in counts.most_common())
        + f"; {server.starts} servers and {runs} clients were started;"
        " every mean is that of an undisturbed job, to 1e-12, counts exactly, and every vector is"
        " there once, bit for bit"
    )
