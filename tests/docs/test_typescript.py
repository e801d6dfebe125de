"""The example in TypeScript: stubs generated from `proto/`, checked by tsc, and run."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from actvec.client import Client, Document

# npm takes most of its time, and asks a registry.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["The tide comes back twice a day.", "So it does.", " "]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The folder, with its packages."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    clone = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "proto", clone / "proto")
    folder = clone / "examples" / "typescript"
    kept = shutil.ignore_patterns("node_modules", "build", "generated")
    shutil.copytree(ROOT / "examples" / "typescript", folder, ignore=kept)
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
    run = subprocess.run(
        install, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    if run.returncode and ("ENOTFOUND" in run.stderr or "ECONNREFUSED" in run.stderr):
        pytest.skip("the registry of npm is not reached")
    assert run.returncode == 0, run.stderr
    return folder


def test_it_gets_layers_and_spans(example, demo_server):
    run = subprocess.run(
        ["npm", "run", "choices", "--silent", "--", demo_server.target],
        cwd=example,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    document = Document("", TEXTS[0], spans=[("subject", 0, 8)])
    with Client(demo_server.target) as client:
        vector = client.extract(
            document, layers=[1, 2], separate=True, pools=["span:subject", "mean"]
        )
    assert answer["shape"] == list(vector.array.shape)
    assert answer["values"] == vector.values.tolist()


def test_example_gets_our_vectors(example, demo_server):
    run = subprocess.run(
        ["npm", "start", "--silent", "--", demo_server.target, *TEXTS],
        cwd=example,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    rows = {row["id"]: row for row in map(json.loads, run.stdout.splitlines())}
    with Client(demo_server.target) as client:
        for number, text in enumerate(TEXTS[:2]):
            vector = client.extract(text, mode="short")
            row = rows[f"text-{number}"]
            assert row["tokens"] == vector.tokens
            assert row["dimensions"] == len(vector.values)
            assert row["first"] == vector.values[:3].tolist()
    assert "is empty or blank" in rows["text-2"]["error"]
