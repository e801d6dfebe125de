"""The site: it is built without a warning, by the environment's programs and no others."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_it_is_built_where_nothing_of_the_environment_is_on_the_path(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        check=False,
        cwd=ROOT,
        env=os.environ | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    client = (tmp_path / "reference/client.html").read_text()
    for name in ("Client.extract", "Client.stream", "Client.corpus_mean", "StampChanged"):
        assert f'id="actvec.client.{name}"' in client
    contract = (tmp_path / "reference/contract.html").read_text()
    assert "StreamCorpusMean" in contract
    assert 'id="vectorsettings"' in contract
