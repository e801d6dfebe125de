"""The scripts for batch systems, run with each system's variables set by hand."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import numpy as np
import pytest
import yaml
from numpy.testing import assert_allclose
from safetensors.numpy import load_file

from actvec.client import Client, load
from actvec.client.errors import ActvecError, FailedPrecondition
from tests.shards.running import TEXTS, run

pytestmark = pytest.mark.usefixtures("loaded_once")

SCRIPTS = Path(__file__).parents[2] / "deploy" / "batch"
KUBERNETES = yaml.safe_load((SCRIPTS / "kubernetes.yaml").read_text())
SKYPILOT = yaml.safe_load((SCRIPTS / "skypilot.yaml").read_text())
CONTAINER = KUBERNETES["spec"]["template"]["spec"]["containers"][0]

# What a task of each system runs, and the variables that the system gives task I of 3, from 0.
TASKS = {
    "slurm": (
        ["bash", str(SCRIPTS / "slurm.sh")],
        lambda task: {"SLURM_ARRAY_TASK_ID": task + 1},
    ),
    "kubernetes": (
        [*CONTAINER["command"], *CONTAINER["args"]],
        lambda task: {"JOB_COMPLETION_INDEX": task},
    ),
    "skypilot": (
        ["bash", "-c", SKYPILOT["run"]],
        lambda task: {"SKYPILOT_NODE_RANK": task, "SKYPILOT_NUM_NODES": 3},
    ),
}


@pytest.fixture
def start(tmp_path, corpus):
    """Start the task of a system with another program for `actvec`, a line of Python."""
    (tmp_path / "bin").mkdir()

    def start(system, task, program):
        path = tmp_path / "bin" / "actvec"
        path.write_text(f"#!{sys.executable}\nimport sys\n{program}\n")
        path.chmod(0o755)
        command, variables = TASKS[system]
        environment = os.environ | {
            "PATH": f"{path.parent}{os.pathsep}{os.environ['PATH']}",
            "SHARDS": "3",
            "CORPUS": str(corpus),
            "OUT": "out",
            "MODEL": "demo",
            **{name: str(value) for name, value in variables(task).items()},
        }
        return subprocess.Popen(
            command,
            env=environment,
            cwd=tmp_path,
            start_new_session=True,
            stdout=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def commands(start):
    """The commands of a task, which exit with 1 as they do if documents fail."""

    def commands(system, task):
        said, _ = (
            started := start(system, task, "print(*sys.argv[1:]); sys.exit(1)")
        ).communicate()
        assert started.returncode == 0
        return [line.split() for line in said.splitlines()]

    return commands


def test_tasks_make_what_one_process_makes(corpus, start, commands):
    """One of the three is killed in the middle, and runs again."""
    killed = start("slurm", 1, "from actvec.shards.command import local; local(sys.argv[2:])")
    while not Path("out/mean/2-of-3/jobs").exists():
        assert killed.poll() is None
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    merge = ("merge", "out/mean", "--name", "corpus", "--to", "merged")
    with pytest.raises(FailedPrecondition, match=r"has no shard 1/3, 3/3"):
        run(*merge)
    for task in (0, 1, 2):
        for command in commands("slurm", task):
            assert command[0] == "local"
            run(*command[1:])
    assert "29 documents" in run(*merge).output

    run("mean", corpus, "--name", "corpus", "--out", "alone/mean")
    run("merge", "alone/mean", "--name", "corpus", "--to", "alone/merged")
    merged, whole = load_file("merged"), load_file("alone/merged")
    assert_allclose(merged["sums"], whole["sums"], rtol=1e-12, atol=1e-12)
    assert np.array_equal(merged["counts"], whole["counts"])

    run("vectors", corpus, "--mode", "short", "--out", "alone/vectors")
    made, expected = rows(Path("out/vectors")), rows(Path("alone/vectors"))
    assert sorted(made) == sorted(set(range(30)) - {5}) == sorted(expected)
    assert all(np.array_equal(made[index], expected[index]) for index in made)


@pytest.mark.parametrize("system", TASKS)
def test_each_system_runs_the_same_commands(system, commands, corpus):
    for task in range(3):
        every = [str(corpus), "--shard", f"{task + 1}/3", "--model", "demo"]
        assert commands(system, task) == [
            ["local", "mean", *every, "--name", "corpus", "--out", "out/mean"],
            ["local", "vectors", *every, "--mode", "short", "--out", "out/vectors"],
        ]


def test_centered_shard_is_resumed(corpus):
    run("mean", corpus, "--name", "c", "--out", "mean")
    run("merge", "mean", "--name", "c", "--to", "mean.safetensors")
    command = ("vectors", corpus, "--mode", "long", "--out", "out", "--shard", "1/2")
    first = run(*command, "--center", "mean.safetensors", "--format", "parquet").output
    assert run(*command, "--center", "mean.safetensors", "--format", "parquet").output == first
    manifest = json.loads(Path("out/1-of-2/manifest.json").read_text())
    assert manifest["stamp"]["corpus_mean_sha256"]
    with pytest.raises(ActvecError, match=r"center|corpus_mean"):
        run(*command, "--format", "parquet")


def test_own_pools_of_separate_layers(corpus, demo_server):
    run("mean", corpus, "--name", "c", "--separate", "--out", "mean")
    run("merge", "mean", "--name", "c", "--to", "mean.safetensors")
    command = ("vectors", corpus, "--pools", "mean,exp:0.1", "--separate")
    run(*command, "--out", "raw")
    run(*command, "--out", "centered", "--center", "mean.safetensors")
    raw, centered = load("raw/1-of-1"), load("centered/1-of-1")
    with Client(demo_server.target) as client:
        asked = {"pools": ["mean", "exp:0.1"], "separate": True}
        expected = client.vectors([TEXTS[index] for index in raw.facts["index"]], **asked).array
    assert np.array_equal(raw.array, expected.astype(np.float16))
    assert centered.stamp.centered
    assert centered.array.shape == raw.array.shape


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (
            (),
            "say which pools a vector has: --mode short (D numbers), --mode long (4 D), or --pools",
        ),
        (("--mode", "short", "--pools", "mean"), "--mode already names pools; give only one"),
    ],
)
def test_pools_are_named_once(corpus, asked, reason):
    refused = run("vectors", corpus, "--out", "out", *asked)
    assert refused.exit_code == 2
    assert reason in refused.output


def test_hostile_ids_reach_no_terminal(tmp_path):
    path = tmp_path / "hostile.jsonl"
    path.write_text(json.dumps({"id": "\x1b]0;owned\x07", "text": " "}) + '\n{"text": "One."}\n')
    made = run("mean", path, "--name", "c", "--out", "mean")
    assert made.exit_code == 1
    assert r"the first is \x1b]0;owned\x07: " in made.output


def test_foreign_shards_are_not_merged(corpus):
    merge = ("merge", "mean", "--name", "c", "--to", "m")
    Path("mean").mkdir()
    with pytest.raises(FailedPrecondition, match="holds no shard"):
        run(*merge)
    run("mean", corpus, "--name", "c", "--out", "mean", "--shard", "1/30")
    with pytest.raises(FailedPrecondition, match="has no shard 2/30, 3/30"):
        run(*merge)
    Path("mean/1-of-30").rename("mean/1-of-1")
    with pytest.raises(FailedPrecondition, match="is a shard of the mean 'c', not 'd'"):
        run(*merge[:3], "d", *merge[4:])
    Path("mean/1-of-1/record.json").unlink()
    with pytest.raises(FailedPrecondition, match="is not done; run it again first"):
        run(*merge)
    Path("mean/2-of-3").mkdir()
    with pytest.raises(FailedPrecondition, match="holds shards of 1, 3"):
        run(*merge)


def test_a_shard_counts_once(corpus):
    """The first and the last of three shards are of the same documents."""
    for number in (1, 2):
        run("mean", corpus, "--name", "c", "--out", "mean", "--shard", f"{number}/3")
    shutil.copytree("mean/1-of-3", "mean/3-of-3")
    with pytest.raises(ActvecError, match="means c and c have the same documents"):
        run("merge", "mean", "--name", "c", "--to", "m")


def rows(folder):
    """The vectors of all shards by their documents' numbers, each once."""
    found = {}
    for index in folder.rglob("vectors-*.jsonl"):
        vectors = load_file(index.with_suffix(".safetensors"))["vec"]
        for row in map(json.loads, index.read_text().splitlines()):
            assert row["index"] not in found
            found[row["index"]] = vectors[row["row"]]
    return found


def test_as_many_tasks_as_shards():
    slurm = (SCRIPTS / "slurm.sh").read_text()
    assert "#SBATCH --array=1-8\n" in slurm
    assert "SHARDS=${SHARDS:-8}\n" in slurm
    assert SKYPILOT["num_nodes"] == 8
    shards = {one["name"]: one["value"] for one in CONTAINER["env"]}["SHARDS"]
    assert KUBERNETES["spec"]["completions"] == KUBERNETES["spec"]["parallelism"] == int(shards)


def test_job_of_kubernetes_fits_its_schema():
    kubernetes_validate.validate(KUBERNETES, "1.33", strict=True)
    job, pod = KUBERNETES["spec"], KUBERNETES["spec"]["template"]["spec"]
    assert job["completionMode"] == "Indexed"
    # What `backoffLimitPerIndex` asks for.
    assert pod["restartPolicy"] == "Never"
    assert {one["name"] for one in pod["volumes"]} == {
        one["name"] for one in CONTAINER["volumeMounts"]
    }


def test_task_of_skypilot_has_known_fields():
    """Its schema is in its package, which brings every cloud's."""
    assert SKYPILOT.keys() == {
        *("name", "workdir", "num_nodes", "resources", "file_mounts", "envs", "setup", "run")
    }
