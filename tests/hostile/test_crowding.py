"""Legal requests that try to leave nothing for others, who are still served."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import grpc
import pytest

from actvec.server.config import Limits
from actvec.v1 import means_pb2
from tests.hostile.crowding import (
    ATTACKS,
    MEAN,
    Crowd,
    mean_of,
    seconds_of_small_calls,
    silent_connection,
    storm,
    upload_of,
)
from tests.hostile.target import SERVICE, Target

ROOT = Path(__file__).resolve().parents[2]
MESSAGE = Limits().message_bytes

# Memory for all calls of the crowded server.
MEMORY = 512 << 20


@pytest.fixture(scope="module")
def crowded(start_server):
    server = start_server(
        # A small call waits for a step or two of others, which are small here.
        "--document-tokens=256",
        "--step-tokens=256",
        # A proper caller on a busy machine is silent for less.
        "--silent-seconds=3",
        "--connections=1500",
        "--metrics-port=0",
        f"--memory-bytes={MEMORY}",
    )
    target = Target(server)
    yield target
    print("", *(endured.row() for endured in target.endured), sep="\n")


@pytest.fixture(scope="module")
def crowd(crowded, pytestconfig):
    long_form = pytestconfig.getoption("--long-form")
    size, patience = (MESSAGE, 5) if long_form else (MESSAGE // 4, 0.2)
    port = re.search(r"metrics on http://[^ ]*:(\d+)/", crowded.server.log)
    with grpc.insecure_channel(crowded.server.target) as channel:
        call = channel.stream_unary(f"{SERVICE}/UploadCorpusMean")
        call(upload_of(mean_of(size), MEAN), timeout=120)
    return Crowd(crowded.server.target, int(port[1]), size, patience)


@pytest.mark.parametrize("name", ATTACKS)
def test_one_who_asks_for_much_is_bounded(crowded, crowd, amount, name):
    attack, at_once = ATTACKS[name]

    def at_it(times):
        return asyncio.run(storm(crowd, attack, at_once, times))

    crowded.endure(name, amount(short=min(at_once, 40), long=5 * at_once), at_it)


class Watch:
    """The largest resident memory of a process within the block, in MiB."""

    def __init__(self, process: int) -> None:
        self.peak = 0.0
        self._statm = Path(f"/proc/{process}/statm")
        self._over = Event()
        self._thread = Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._look_once()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self._look_once()

    def _look_once(self) -> None:
        pages = int(self._statm.read_text().split()[1])
        self.peak = max(self.peak, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


def test_small_calls_survive_all_attacks(crowded, crowd, amount):
    calls = amount(short=20, long=500)
    idle = seconds_of_small_calls(crowd.target, calls)
    command = [sys.executable, "-m", "tests.hostile.crowding", crowd.target]
    command += [str(crowd.metrics_port), str(crowd.size)]
    with Watch(crowded.server.process.pid) as watch:
        at_rest = watch.peak
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as attacking:
            assert attacking.stdout.readline() == b"crowding\n"
            time.sleep(amount(short=1, long=5))
            attacked = seconds_of_small_calls(crowd.target, calls)
            attacking.send_signal(signal.SIGKILL)
    crowded.assert_unharmed()
    for name, seconds in (("alone", idle), ("under all attacks", attacked)):
        p50, p99 = (1000 * seconds[int(share * (calls - 1))] for share in (0.5, 0.99))
        print(f"\n{calls} small calls {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms", end="")
    print(f"\nmemory: {at_rest:.0f} MiB at rest, {watch.peak:.0f} at the most")
    # The formula of docs/operations.md; see there.
    tokenizing, checking = 256 * crowd.size * 4 // 5 + (96 << 20), 4 * 16 * crowd.size
    arriving = 32 * crowd.size
    grown = (watch.peak - at_rest) * 2**20
    assert grown < MEMORY + tokenizing + checking + arriving + (64 << 20)


def test_silence_takes_no_files_of_others(crowded, crowd, amount):
    """More silent connections than the default of open files, while the store is read."""

    async def crowd_out():
        attempts = amount(short=200, long=1100)
        patient = replace(crowd, patience=60)
        silent = asyncio.create_task(storm(patient, silent_connection, attempts, attempts))
        await asyncio.sleep(0.2)
        async with crowd.channel() as channel:
            listed = channel.unary_unary(f"{SERVICE}/ListCorpusMeans")
            answer = await listed(means_pb2.ListCorpusMeansRequest().SerializeToString())
        ends = await silent
        return ends, means_pb2.ListCorpusMeansResponse.FromString(answer)

    ends, means = asyncio.run(crowd_out())
    assert len(means.corpus_means) == 1
    assert set(ends) <= {"cut by the server", "closed by the server"}
    crowded.assert_unharmed()
