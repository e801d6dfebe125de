"""The client is light: importing it is quick and pulls in nothing that it does not need."""

import subprocess
import sys

PROGRAM = """
import sys, time
started = time.perf_counter()
import actvec.client
print(time.perf_counter() - started)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
print(*sorted(name for name in sys.modules if name.startswith("actvec")))
"""

HEAVY = {
    *("torch", "transformers", "transformer_lens", "safetensors", "datasets", "pandas", "pyarrow"),
    *("matplotlib", "rich", "click"),
}


def test_importing_the_client_is_light():
    times = []
    # Three times, for the best: another program may be busy, and the first reads from a cold disk.
    for _ in range(3):
        output = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
        ).stdout
        seconds, packages, ours = output.splitlines()
        times.append(float(seconds))
        assert HEAVY.isdisjoint(packages.split())
        assert not any(name.startswith("actvec.server") for name in ours.split())
    assert min(times) < 0.5
