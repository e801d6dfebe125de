"""Callers of all kinds, for as long as you like, while things break: nothing is lost or leaks.

    pytest tests/faults -s --soak-minutes 20

is a longer form; `make soak` runs it, for hours with SOAK_MINUTES.
"""

import collections
import random
import statistics
import threading
import time
from pathlib import Path

import pytest

from actvec.client import Client
from tests.faults.callers import Asking, Centering, Leaving
from tests.faults.rounds import WEIGHTS, run_round
from tests.faults.supervisors import ServerSupervisor

# Faults that spare the server's process, whose memory is watched.
SPARING = {name: weight for name, weight in WEIGHTS.items() if not name.startswith("server")}
# In a younger process, caches still fill.
LONG_ENOUGH = 300


class Watch:
    """Looks at the server's process every second."""

    def __init__(self, server):
        self.looks = []
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self):
        """Samples `(pid, MiB resident, descriptors, threads)` of the last process."""
        self._ended.set()
        self._thread.join()
        return [look for look in self.looks if look[0] == self.looks[-1][0]]

    def _run(self):
        while not self._ended.wait(1):
            process = Path(f"/proc/{self._server.pid}")
            try:
                status = dict(
                    line.split(":", 1) for line in (process / "status").read_text().splitlines()
                )
                descriptors = len(list((process / "fd").iterdir()))
                resident = int(status["VmRSS"].split()[0]) / 1024
                self.looks.append((self._server.pid, resident, descriptors, int(status["Threads"])))
            except (OSError, KeyError):
                # The process is just being killed.
                continue


def quarters(values):
    size = max(1, len(values) // 4)
    return [statistics.mean(values[part * size : (part + 1) * size]) for part in range(4)]


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_server_may_be_left_alone(pytestconfig, tmp_path, start_server, demo_server):
    minutes, seed = pytestconfig.getoption("--soak-minutes"), pytestconfig.getoption("--fault-seed")
    chance = random.Random(seed)  # noqa: S311 - faults, not secrets
    server = ServerSupervisor(start_server, tmp_path / "data", "--commit-seconds=0.2")
    watch = Watch(server)
    target = server.proxy.target
    callers = [Asking(target, demo_server.target), Leaving(target), Centering(target)]
    faults: collections.Counter[str] = collections.Counter()
    rounds = runs = 0
    start = time.monotonic()
    try:
        while time.monotonic() < start + 60 * minutes:
            rounds += 1
            # Restart it in the first quarter, then leave it alone.
            early = time.monotonic() < start + 15 * minutes
            counts, started = run_round(
                rounds,
                chance=chance,
                most=max(3, round(20 * minutes)),
                weights=WEIGHTS if early else SPARING,
                server=server,
                undisturbed=demo_server,
                directory=tmp_path,
            )
            faults += counts
            runs += started
            delete_means(server.proxy.target, f"round-{rounds}")
            delete_means(demo_server.target, f"corpus-{rounds}-undisturbed")
        # Nothing breaks any more.
        for caller in callers:
            caller.answered.wait(60)
    finally:
        looks = watch.end()
        ends = [caller.end() for caller in callers]
        server.close()
    assert not any(ends), ends
    _, *columns = zip(*looks, strict=True)
    resident, descriptors, threads = (quarters(column) for column in columns)
    calls = {type(caller).__name__: dict(caller.done) for caller in callers}
    print(
        f"\nseed {seed}, {(time.monotonic() - start) / 60:.1f} minutes: {rounds} pairs of jobs, "
        f"{faults.total()} faults, {server.starts} servers and {runs} clients started, nothing "
        f"lost; calls beside them: {calls}; the last server, of {len(looks)} s, by quarters: MiB "
        f"{[round(mean) for mean in resident]}, descriptors "
        f"{[round(mean) for mean in descriptors]}, threads {[round(mean) for mean in threads]}"
    )
    assert all(caller.done["answered"] for caller in callers)
    if len(looks) > LONG_ENOUGH:
        assert resident[3] < 1.05 * resident[1]
        assert descriptors[3] < descriptors[1] + 5
        assert threads[3] < threads[1] + 5


def delete_means(target, name):
    with Client(target) as client:
        client.delete_mean(name)
