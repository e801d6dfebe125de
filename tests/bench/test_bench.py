"""The benchmarks run from end to end, at a size at which their figures mean nothing."""

import re
import subprocess
import sys

import pytest

# Each compares all engines and peers: half a minute of two processors.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("program", "contenders"),
    [
        pytest.param(
            [
                "bench.gpu",
                "--device=cpu",
                "--dtype=bfloat16",
                "--budgets",
                "512",
                "2048",
                "--served",
            ],
            ["512 tokens", "corpus mean too", "StreamVectors", "LM head, sdpa", "TransformerLens"],
            id="gpu",
        ),
        pytest.param(
            ["bench.gpu", "--device=cpu", "--dtype=float32", "--budgets", "512", "--only-packed"],
            ["512 tokens", "corpus mean too", "tokens of the document"],
            id="gpu-in-memory",
        ),
        pytest.param(
            ["bench.cpu"],
            ["2048 tokens", "corpus mean too", "StreamVectors", "transformers", "TransformerLens"],
            id="cpu",
        ),
    ],
)
def test_contenders_agree_and_are_timed(program, contenders):
    command = [sys.executable, "-m", *program, "--shape=tiny", "--documents=4", "--rounds=1"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert run.returncode == 0, run.stderr
    rows = [line for line in run.stdout.splitlines() if line.startswith("| ")]
    for contender in contenders:
        assert any(contender in row for row in rows), run.stdout


def test_one_pass_costs_are_compared():
    command = [sys.executable, "-m", "bench.one_pass", "--shape=tiny", "--rounds=1"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert run.returncode == 0, run.stderr
    rows = re.findall(r"^\| (.+) \| [\d.]+ \|$", run.stdout, re.MULTILINE)
    assert rows[:2] == ["three layers averaged, short", "5 layers separate, 4 pools"]
    assert len(rows) == 8


def test_profile_lists_slow_operators():
    command = [sys.executable, "-m", "bench.cpu", "--shape=tiny", "--documents=4", "--profile"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert run.returncode == 0, run.stderr
    shares = re.findall(r"^\| `(.+)` \| ([\d.]+)% \|$", run.stdout, re.MULTILINE)
    # Attention, whichever the processor has.
    assert any(re.search("flash_attention|_softmax", name) for name, _ in shares), run.stdout
    assert 80 < sum(float(share) for _, share in shares) <= 100.5
