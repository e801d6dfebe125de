"""vLLM as a peer, by stand-ins: interpreters that have another `vllm`."""

import re
import shutil
import subprocess
import sys

import pytest

from actvec.server.engine.packed import PackedEngine
from bench.vllm_peer import CutModel, vllm
from bench.workload import SHAPES, Workload

# The part of vLLM that the benchmark calls, one document after the other in transformers.
RIGHT = """
import torch
from transformers import AutoModel

__version__ = "0.0"


class LLM:
    def __init__(self, directory, **options):
        print("vLLM prints on the standard output")
        assert options["max_num_batched_tokens"] == 2048
        assert options["enable_prefix_caching"] is False
        self._model = AutoModel.from_pretrained(directory, dtype=getattr(torch, options["dtype"]))

    @torch.inference_mode()
    def embed(self, prompts, use_tqdm):
        return [Output(self._model, prompt["prompt_token_ids"]) for prompt in prompts]


class Output:
    def __init__(self, model, ids):
        states = model(torch.tensor([ids])).last_hidden_state[0]
        self.embedding = states.float().mean(0).tolist()
        self.outputs = self
"""

# One that computes nothing.
QUICK = """
import os
from types import SimpleNamespace

__version__ = "0.0"


class LLM:
    def __init__(self, directory, **options):
        {start}

    def embed(self, prompts, use_tqdm):
        {call}
        return [SimpleNamespace(outputs=SimpleNamespace(embedding=[0.5] * 64)) for _ in prompts]
"""


@pytest.fixture
def interpreter(tmp_path):
    """Make an interpreter that imports this source as `vllm`."""

    def make(source):
        package = tmp_path / "packages" / "vllm"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(source)
        config = "class PoolerConfig:\n    def __init__(self, pooling_type, use_activation): pass\n"
        (package / "config.py").write_text(config)
        python = tmp_path / "python"
        python.write_text(
            f'#!/bin/sh\nPYTHONPATH="{package.parent}" exec "{sys.executable}" "$@"\n'
        )
        python.chmod(0o755)
        return str(python)

    return make


@pytest.fixture(scope="module")
def compare():
    """Start a peer and compare its vectors with ours, as the benchmark does before it times."""
    workload = Workload(SHAPES["tiny"], 3)
    loaded = workload.load()
    model = CutModel.of(loaded)
    engine = PackedEngine(loaded)

    def run(python):
        with vllm(python, model, engine, workload.documents, step_tokens=2048) as contender:
            return contender.name

    return run


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_vllm_is_timed_beside_us(interpreter):
    command = [sys.executable, "-m", "bench.cpu", "--shape=tiny", "--documents=3", "--rounds=1"]
    command += ["--only-packed", f"--vllm={interpreter(RIGHT)}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert run.returncode == 0, run.stderr
    row = r"^\| vLLM 0\.0, .* mean of 5 blocks, steps of 2048 tokens \| \d+ \| \d"
    assert re.search(row, run.stdout, re.MULTILINE), run.stdout


@pytest.mark.parametrize(
    ("python", "fact"),
    [
        pytest.param("/nowhere/python", "No such file or directory", id="missing"),
        pytest.param(shutil.which("true"), "exit code 0: it printed nothing", id="other-program"),
        pytest.param(sys.executable, "ModuleNotFoundError: No module named 'vllm'", id="no-vllm"),
    ],
)
def test_wrong_interpreter_ends_the_run(compare, python, fact):
    with pytest.raises(SystemExit) as ended:
        compare(python)
    (line,) = str(ended.value).splitlines()
    assert fact in line
    assert 'bench/README.md, section "vLLM"' in line


def test_failed_start_names_its_reason(compare, interpreter):
    source = QUICK.format(start="raise ValueError('no such dtype')", call="pass")
    with pytest.raises(SystemExit, match=r"before it was ready, .*ValueError: no such dtype"):
        compare(interpreter(source))


def test_wrong_vector_ends_the_run(compare, interpreter):
    with pytest.raises(SystemExit, match=r"^vLLM 0\.0, .*: the vector of document 0 differs by"):
        compare(interpreter(QUICK.format(start="pass", call="pass")))


def test_peer_that_dies_ends_the_run(compare, interpreter):
    with pytest.raises(SystemExit, match=r"^vLLM ended with 3 documents at work, exit code 7: "):
        compare(interpreter(QUICK.format(start="pass", call="os._exit(7)")))
