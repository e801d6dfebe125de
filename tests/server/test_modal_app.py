"""The app on Modal, as far as it can be seen without an account: what it declares."""

import inspect
import os
import subprocess
import sys
import warnings

import pytest
import torch
from modal.mount import _Mount

from actvec.server import modal_app, modal_resources
from actvec.server.background import BackgroundServer
from actvec.server.errors import CutShortError, EngineLostError, StartupError
from actvec.server.site import Site
from actvec.server.worker import Worker

from ..volume import FolderVolume

EXTRACTOR = "Pythia12BActivationExtractor"
SERVER = "ActivationVectorServer"
COORDINATORS = ("corpus_mean", "vectors")


@pytest.fixture(scope="module")
def functions():
    with warnings.catch_warnings():
        # Its successor comes with modal 1.7; the version is pinned.
        warnings.simplefilter("ignore")
        return dict(modal_app.app.registered_functions)


def told(declaration):
    """What a deployment would tell Modal of something: it waits in a closure until then."""
    (inner,) = [part for part in vars(declaration).values() if hasattr(part, "_load")]
    return inspect.getclosurevars(inner._load).nonlocals


@pytest.fixture(scope="module")
def declared(functions):
    """The same of a function, by its name."""
    return lambda name: told(functions[name])


@pytest.fixture(scope="module")
def environment(functions):
    """The variables that a function's containers get beside those of the image."""

    def environment(name):
        given = [secret for secret in functions[name]._spec_.secrets if not secret.name]
        return {key: value for one in given for key, value in one._load_env_dict().items()}

    return environment


def test_the_app_has_the_extractor_the_server_and_what_fills_the_volumes(functions):
    assert modal_app.app.name == "actvec"
    fills = {"download", "fetch_corpus"}
    assert set(functions) == {f"{EXTRACTOR}.*", SERVER, *fills, *COORDINATORS}


@pytest.mark.filterwarnings("ignore:.*registered_entrypoints.*deprecated")
def test_one_entry_point_is_what_modal_run_takes_without_a_name():
    assert list(modal_app.app.registered_entrypoints) == ["main"]


@pytest.mark.parametrize("name", COORDINATORS)
def test_what_waits_for_workers_has_a_day_and_no_gpu(functions, declared, name):
    assert functions[name]._spec_.gpus is None
    assert set(functions[name]._spec_.volumes) == {"/weights", "/data"}
    assert declared(name)["timeout"] == 24 * 3600


@pytest.mark.parametrize("name", [f"{EXTRACTOR}.*", SERVER])
def test_what_computes_has_a_gpu_memory_its_volumes_and_the_token(functions, name):
    spec = functions[name]._spec_
    assert spec.gpus == "A100-80GB"
    assert spec.memory == 65536
    assert set(spec.volumes) == {"/weights", "/data"}
    assert spec.volumes["/weights"]._mount_options.read_only
    assert not functions["download"]._spec_.volumes["/weights"]._mount_options
    assert [secret.name for secret in spec.secrets if secret.name] == ["actvec-token"]


@pytest.mark.parametrize("name", [f"{EXTRACTOR}.*", SERVER, *COORDINATORS])
def test_what_reads_the_weights_does_not_ask_the_hub_and_what_fetches_does(environment, name):
    assert environment(name) == {"HF_HUB_OFFLINE": "1"}
    assert not environment("fetch_corpus")
    assert environment("download").keys() <= {"HF_TOKEN"}


def test_a_first_start_has_time_for_a_download_and_a_server_for_a_day(declared):
    extractor = declared(f"{EXTRACTOR}.*")
    assert extractor["startup_timeout"] == 3600
    assert extractor["timeout"] == 24 * 3600
    assert extractor["scaledown_window"] == 60
    assert declared(SERVER)["startup_timeout"] == 3600
    assert declared("download")["timeout"] == 4 * 3600


def test_a_snapshot_is_taken_and_holds_the_gpu_only_where_somebody_asks(declared):
    assert declared(f"{EXTRACTOR}.*")["enable_memory_snapshot"]
    assert not declared(f"{EXTRACTOR}.*")["experimental_options"]
    assert not declared(SERVER)["enable_memory_snapshot"]


def test_a_snapshot_holds_the_gpu_where_somebody_asks():
    program = (
        "import inspect; from actvec.server.modal_app import app;"
        f" extractor = app.registered_functions['{EXTRACTOR}.*'];"
        " (inner,) = [part for part in vars(extractor).values() if hasattr(part, '_load')];"
        " print(inspect.getclosurevars(inner._load).nonlocals['experimental_options'])"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "ACTVEC_MODAL_GPU_SNAPSHOT": "1"},
    )
    assert run.stdout.strip() == "{'enable_gpu_snapshot': 'True'}"


def test_download_has_the_hub_token_of_this_machine(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert modal_resources.hub_secrets() == []
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
    (secret,) = modal_resources.hub_secrets()
    (inner,) = [part for part in vars(secret).values() if hasattr(part, "_load_env_dict")]
    assert inner._load_env_dict() == {"HF_TOKEN": "hf_of_the_tests"}


@pytest.mark.parametrize("volume", [modal_resources.weights, modal_resources.data])
def test_volumes_are_of_the_second_version_and_made_where_they_are_missing(volume):
    assert (told(volume)["version"], told(volume)["create_if_missing"]) == (2, True)


def test_a_container_has_one_input_at_a_time(declared):
    assert not declared(f"{EXTRACTOR}.*")["max_concurrent_inputs"]


def test_the_second_front_speaks_http_2_and_leaves_the_token_to_us(declared):
    front = declared(SERVER)["http_config"]
    assert (front.port, front.h2_enabled, front.unauthenticated) == (50051, True, True)
    assert front.exit_grace_period > 2 * modal_app._server_config().grace


def test_all_source_roots_are_in_the_image():
    (image,) = [p for p in vars(modal_app.image).values() if type(p).__name__ == "_Image"]
    assert image._added_python_source_set == {"actvec"}
    mount = _Mount._from_local_python_packages("actvec")
    files = {str(target) for entry in mount._entries for _, target in entry.get_files_to_upload()}
    for module in ("v1/vectors_pb2.py", "pooling/mean.py", "server/engine.py", "client/aio.py"):
        assert f"/root/actvec/{module}" in files


def test_a_container_serves_with_the_secrets_token_and_refuses_to_without(monkeypatch):
    secret = "of-the-secret"  # noqa: S105 - of the tests
    monkeypatch.setenv("ACTVEC_TOKEN", secret)
    assert modal_app._server_config().access.token == secret
    monkeypatch.delenv("ACTVEC_TOKEN")
    front = BackgroundServer(modal_app._server_config(host="0.0.0.0"), on_failure=pytest.fail)  # noqa: S104
    with pytest.raises(StartupError, match="everybody there could call"):
        front.start()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_container_without_a_gpu_ends_and_says_so_instead_of_using_its_cpu(monkeypatch, tmp_path):
    site = Site(tmp_path, tmp_path / "mount", FolderVolume(tmp_path / "v", tmp_path / "mount"))
    monkeypatch.setattr(modal_app, "MODEL", "demo")
    monkeypatch.setattr(modal_app, "_site", lambda: site)
    with pytest.raises(StartupError, match="cannot use device 'cuda:0'"):
        modal_app._make_worker()
    front = BackgroundServer(
        modal_app._server_config(port=0), on_failure=pytest.fail, replica=site.replica()
    )
    with pytest.raises(StartupError, match="cannot use device 'cuda:0'"):
        front.start()


@pytest.fixture
def container(monkeypatch, demo_engine, demo_model, tmp_path):
    """The extractor's class as in a container, with a model of ours."""
    worker = Worker(demo_engine, demo_model, tmp_path)
    monkeypatch.setattr(modal_app, "_make_worker", lambda: worker)
    container = getattr(modal_app, EXTRACTOR)()
    # What Modal does before the first input, it does on this machine for such methods alone.
    assert container.get_model_info.local()["model"] == "demo"
    return container


@pytest.mark.filterwarnings("ignore:.* is executing locally")
@pytest.mark.parametrize("error", [EngineLostError, CutShortError])
@pytest.mark.parametrize(
    ("method", "arguments"), [("serve", ()), ("compute_shard", ("1/1", "mean", "c", "n", {}))]
)
async def test_a_process_ends_whose_engine_hangs_or_may_be_at_a_step_still(
    container, monkeypatch, method, arguments, error
):
    """What comes next would run it from a second thread."""

    async def fail(*_):
        raise error("of the engine")

    def end(code):
        raise SystemExit(code)

    monkeypatch.setenv("MODAL_TASK_ID", "ta-1")
    monkeypatch.setattr("actvec.server.tenure.serve_until_unused", fail)
    monkeypatch.setattr("actvec.server.fanout.ShardRunner.mean", fail)
    monkeypatch.setattr(modal_app.os, "_exit", end)
    with pytest.raises(SystemExit) as ended:
        await getattr(container, method).local(*arguments)
    assert ended.value.code == os.EX_SOFTWARE


def test_its_methods_are_those_of_the_worker():
    methods = {"get_activation_vector", "get_activation_matrix", "get_model_info"}
    for name in methods | {"serve", "compute_shard"}:
        assert hasattr(getattr(modal_app, EXTRACTOR), name)
    for name in methods:
        assert hasattr(Worker, name)


def test_the_image_pins_what_the_project_pins():
    requirements = modal_resources.requirements()
    for pinned in ("torch==2.13.0", "transformers==5.23.0", "transformer-lens==4.3.0"):
        assert pinned in requirements
    assert not [line for line in requirements if line.startswith(("pytest", "modal"))]


def test_a_deployment_chooses_by_the_environment():
    names = "APP, GPU, MODEL, GPU_SNAPSHOT, IDLE"
    program = f"from actvec.server.modal_resources import {names}; print({names})"
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "ACTVEC_MODAL_APP": "actvec-70m",
        "ACTVEC_MODAL_IDLE": "60",
        "ACTVEC_MODAL_GPU": "L4",
        "ACTVEC_MODAL_MODEL": "EleutherAI/pythia-70m",
        "ACTVEC_MODAL_GPU_SNAPSHOT": "1",
    }
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert run.stdout.split() == ["actvec-70m", "L4", "EleutherAI/pythia-70m", "True", "60.0"]


@pytest.mark.filterwarnings("ignore:The fetch_corpus function is executing locally")
def test_a_corpus_is_fetched_by_the_program_that_people_use(monkeypatch, tmp_path):
    ran = []
    with monkeypatch.context() as patch:
        patch.setattr(modal_app.subprocess, "run", lambda command, **_: ran.append(command))
        patch.setattr(modal_app, "data", FolderVolume(tmp_path / "there", tmp_path / "mount"))
        modal_app.fetch_corpus.local("c4.jsonl", dataset="x/y", num_samples=5, seed=1)
    (command,) = ran
    assert command[3:7] == ["corpus", "fetch", "--save-local", "/data/corpora/c4.jsonl"]
    assert " ".join(command[7:]).startswith("--dataset x/y --config en --min-words 700")
    # The program knows these options.
    helped = subprocess.check_output([*command[:3], "corpus", "fetch", "--help"], text=True)
    assert all(option in helped for option in command if option.startswith("--"))


@pytest.mark.filterwarnings("ignore:The fetch_corpus function is executing locally")
@pytest.mark.parametrize("name", ["../means/c.jsonl", "/c.jsonl", "folder/c.jsonl"])
def test_a_corpus_stays_in_the_folder_of_corpora(name):
    with pytest.raises(ValueError, match="without a folder"):
        modal_app.fetch_corpus.local(name)
