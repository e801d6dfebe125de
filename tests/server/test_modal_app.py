"""The app on Modal, as far as it can be seen without an account: what it declares."""

import subprocess
import sys
import warnings

import pytest

modal = pytest.importorskip("modal")

from actvec.server import modal_app  # noqa: E402 - where modal is installed

EXTRACTOR = "Pythia12BActivationExtractor"


@pytest.fixture(scope="module")
def functions():
    with warnings.catch_warnings():
        # Its successor comes with modal 1.7; the version is pinned.
        warnings.simplefilter("ignore")
        return dict(modal_app.app.registered_functions)


def test_the_app_has_the_extractor_and_what_fills_the_volumes(functions):
    assert modal_app.app.name == "actvec"
    assert set(functions) == {f"{EXTRACTOR}.*", "download", "fetch_corpus"}


def test_the_extractor_has_a_gpu_memory_and_its_volumes(functions):
    spec = functions[f"{EXTRACTOR}.*"]._spec_
    assert spec.gpus == "A100-80GB"
    assert spec.memory == 65536
    assert set(spec.volumes) == {"/weights", "/data"}
    assert spec.volumes["/weights"]._mount_options.read_only
    assert not functions["download"]._spec_.volumes["/weights"]._mount_options


def test_its_methods_are_those_of_the_worker():
    from actvec.server.worker import Worker  # noqa: PLC0415

    methods = {"get_activation_vector", "get_activation_matrix", "get_model_info"}
    for name in methods:
        assert hasattr(getattr(modal_app, EXTRACTOR), name)
        assert hasattr(Worker, name)


def test_the_image_pins_what_the_project_pins():
    requirements = modal_app._requirements()
    for pinned in ("torch==2.13.0", "transformers==5.23.0", "transformer-lens==4.3.0"):
        assert pinned in requirements
    assert not [line for line in requirements if line.startswith(("pytest", "modal"))]


def test_a_deployment_chooses_by_the_environment():
    program = "from actvec.server import modal_app as m; print(m.GPU, m.MODEL, m.GPU_SNAPSHOT)"
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "ACTVEC_MODAL_GPU": "L4",
        "ACTVEC_MODAL_MODEL": "EleutherAI/pythia-70m",
        "ACTVEC_MODAL_GPU_SNAPSHOT": "1",
    }
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert run.stdout.split() == ["L4", "EleutherAI/pythia-70m", "True"]


def test_a_corpus_is_fetched_by_the_program_that_people_use():
    command = modal_app.fetch_command("c4.jsonl", dataset="x/y", num_samples=5, seed=1)
    assert command[3:] == [
        *("corpus", "fetch", "--save-local", "/data/corpora/c4.jsonl"),
        *("--dataset", "x/y", "--num-samples", "5", "--seed", "1"),
    ]
    run = subprocess.run(
        [*command[:3], *command[3:-4], "--help"], capture_output=True, text=True, check=True
    )
    for option in ("--dataset", "--config", "--min-words", "--max-words", "--num-samples"):
        assert option in run.stdout


@pytest.mark.parametrize("name", ["../means/c.jsonl", "/c.jsonl", "folder/c.jsonl"])
def test_a_corpus_stays_in_the_folder_of_corpora(name):
    with pytest.raises(ValueError, match="without a folder"):
        modal_app.fetch_command(name)
