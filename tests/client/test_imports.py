"""The client is light: its import pulls in nothing unnecessary."""

import subprocess
import sys

PROGRAM = """
import sys
import actvec.client
print(*sorted({name.partition(".")[0] for name in sys.modules}))
print(*sorted(name for name in sys.modules if name.startswith("actvec")))
"""

HEAVY = {
    *("torch", "transformers", "transformer_lens", "safetensors", "datasets", "pandas", "pyarrow"),
    *("matplotlib", "rich", "click"),
}


def test_importing_the_client_is_light():
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    ).stdout
    packages, ours = (line.split() for line in output.splitlines())
    assert HEAVY.isdisjoint(packages)
    assert not any(name.startswith("actvec.server") for name in ours)
