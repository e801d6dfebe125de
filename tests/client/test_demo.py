"""The example runs as shown, and leaves the files that it announces."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_demo_saves_every_vector(tmp_path):
    program = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert program.returncode == 0, program.stderr
    assert "tokens/s" in program.stdout
    assert "vectors/demo" in program.stdout
    raw, centered = re.search(r"raw ([\d.-]+), centered ([\d.-]+)", program.stdout).groups()
    assert float(centered) < 0.5 < float(raw)
    assert "report, to open in a browser: vectors/demo/report.html" in program.stdout
    assert (tmp_path / "vectors" / "demo" / "report.html").stat().st_size > 100_000
    for mode in ("short", "long"):
        pattern = f"activation_vector_{mode}_*.safetensors"
        saved = list((tmp_path / "vectors" / "demo").glob(pattern))
        assert len(saved) == 20
        for path in saved:
            assert path.stem.removeprefix(f"activation_vector_{mode}_") in program.stdout
