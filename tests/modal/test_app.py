"""The app on Modal, as `modal deploy` sends it to a control plane of our own."""

import json
import subprocess
import sys
from importlib.metadata import requires

import pytest
from modal_proto import api_pb2 as api
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from actvec.modal import app as modal_app
from actvec.modal import corpora, extractor
from actvec.modal import resources as modal_resources
from actvec.modal.worker import Worker
from tests.modal.deployments import ROOTS, Deployments
from tests.volume import FolderVolume

TOKEN = "of-the-secret"  # noqa: S105 - of the tests
EXTRACTOR = "Pythia12BActivationExtractor"
COORDINATORS = ("corpus_mean", "vectors")


@pytest.fixture(scope="module")
def deployments():
    """A workspace with two apps: as they come, and with everything opted into."""
    deployments = Deployments()
    deployments.add_secret("actvec-token", ACTVEC_TOKEN=TOKEN)
    chosen = {"APP": "opted", "GPU_SNAPSHOT": "1", "FRONT": "1", "GPU": "L4", "MAX_CONTAINERS": "3"}
    deployments.deploy("actvec.modal.app", HF_TOKEN="")
    environment = {f"ACTVEC_MODAL_{name}": value for name, value in chosen.items()}
    deployments.deploy("actvec.modal.app", HF_TOKEN="hf_of_the_tests", **environment)
    yield deployments
    deployments.close()


def volumes_of(deployments, function):
    """The name of each volume of a function, and whether it only reads it, by mount point."""
    names = {deployments._id("volume", name): name for name in deployments.volumes}
    return {one.mount_path: (names[one.volume_id], one.read_only) for one in function.volume_mounts}


def test_app_has_extractor_and_fillers(deployments):
    fills = {"download", "fetch_corpus"}
    deployed = deployments.layouts[deployments.deployed["actvec"]]
    assert set(deployed.function_ids) == {f"{EXTRACTOR}.*", *fills, *COORDINATORS}
    assert set(deployed.class_ids) == {EXTRACTOR}


@pytest.mark.filterwarnings("ignore:.*registered_entrypoints.*deprecated")
def test_modal_run_has_one_entry_point():
    assert list(modal_app.app.registered_entrypoints) == ["main"]


@pytest.mark.parametrize("name", COORDINATORS)
def test_coordinators_have_a_day_and_no_gpu(deployments, name):
    function = deployments.function(name)
    assert function.resources.gpu_config.count == 0
    assert volumes_of(deployments, function).keys() == {"/weights", "/data"}
    assert function.timeout_secs == 24 * 3600


def test_workers_have_gpu_volumes_and_token(deployments):
    function = deployments.function(f"{EXTRACTOR}.*")
    assert function.autoscaler_settings.max_containers == 8
    assert function.resources.gpu_config.gpu_type == "A100-80GB"
    assert function.resources.memory_mb == 65536
    assert volumes_of(deployments, function) == {
        "/weights": ("actvec-weights", True),
        "/data": ("actvec-data", False),
    }
    assert volumes_of(deployments, deployments.function("download")) == {
        "/weights": ("actvec-weights", False)
    }
    assert deployments.environment_of(function)["ACTVEC_TOKEN"] == TOKEN


@pytest.mark.parametrize("name", [f"{EXTRACTOR}.*", *COORDINATORS])
def test_weights_are_read_without_the_hub(deployments, name):
    environment = deployments.environment_of(deployments.function(name))
    assert (environment["HF_HUB_OFFLINE"], environment["HF_HOME"]) == ("1", "/weights")
    for filler in ("download", "fetch_corpus"):
        environment = deployments.environment_of(deployments.function(filler))
        assert "HF_HUB_OFFLINE" not in environment
        assert "ACTVEC_TOKEN" not in environment


def test_first_start_has_time_for_a_download(deployments):
    extractor = deployments.function(f"{EXTRACTOR}.*")
    assert extractor.startup_timeout_secs == 3600
    assert extractor.timeout_secs == 24 * 3600
    assert extractor.autoscaler_settings.scaledown_window == 60
    assert deployments.function("download").timeout_secs == 4 * 3600


def test_snapshot_holds_the_gpu_on_request_only(deployments):
    assert deployments.function(f"{EXTRACTOR}.*").checkpointing_enabled
    assert not deployments.function(f"{EXTRACTOR}.*").experimental_options
    opted = deployments.function(f"{EXTRACTOR}.*", "opted")
    assert opted.experimental_options == {"enable_gpu_snapshot": "True"}


def test_download_alone_has_the_hub_token(deployments):
    def token(name, app):
        return deployments.environment_of(deployments.function(name, app)).get("HF_TOKEN")

    assert token("download", "actvec") is None
    assert token("download", "opted") == "hf_of_the_tests"
    for name in (f"{EXTRACTOR}.*", *COORDINATORS, "fetch_corpus"):
        assert token(name, "opted") is None


def test_volumes_are_of_the_second_version(deployments):
    assert deployments.volumes.keys() == {"actvec-weights", "actvec-data"}
    for asked in deployments.volumes.values():
        assert asked.version == api.VOLUME_FS_VERSION_V2
        assert asked.object_creation_type == api.OBJECT_CREATION_TYPE_CREATE_IF_MISSING


def test_container_has_one_input_at_a_time(deployments):
    assert not deployments.function(f"{EXTRACTOR}.*").max_concurrent_inputs


def test_second_front_is_opt_in_and_guarded(deployments):
    """Without a key, any request to a public address would start a GPU."""
    front = deployments.function("ActivationVectorServer", "opted")
    http = front.http_config
    assert (http.port, http.h2_enabled, http.unauthenticated) == (50051, True, False)
    assert http.exit_grace_period > 2 * extractor._server_config().grace
    assert (front.resources.gpu_config.gpu_type, front.resources.memory_mb) == ("L4", 65536)
    workers = deployments.function(f"{EXTRACTOR}.*", "opted")
    for one in (front, workers):
        assert one.autoscaler_settings.max_containers == 3
    assert (front.startup_timeout_secs, front.checkpointing_enabled) == (3600, False)
    assert deployments.environment_of(front)["ACTVEC_TOKEN"] == TOKEN


def test_every_deployment_has_its_own_name(deployments):
    tags = [deployments.tags[app]["actvec-deployment"] for app in deployments.deployed.values()]
    assert tags[0] != tags[1]
    for app, tag in zip(("actvec", "opted"), tags, strict=True):
        environment = deployments.environment_of(deployments.function(f"{EXTRACTOR}.*", app))
        assert environment["ACTVEC_MODAL_DEPLOYMENT"] == tag


def test_containers_hold_every_file_of_the_package(deployments):
    """Not its `.py` alone: they read prices and the demo model's tokenizer."""
    (there,) = [
        files for files in deployments.mounts.values() if "/root/actvec/modal/app.py" in files
    ][:1]
    here = {
        f"/root/actvec/{path.relative_to(root / 'actvec')}"
        for root in ROOTS
        for path in (root / "actvec").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert there == here


def test_image_is_built_from_the_lock(deployments):
    (asked,) = {
        file.data.decode() for image in deployments.images.values() for file in image.context_files
    }
    assert asked == modal_resources.REQUIREMENTS.read_text()


def test_its_methods_are_those_of_the_worker():
    methods = {"get_activation_vector", "get_activation_matrix", "get_model_info"}
    methods.add("find_corpus_mean")
    for name in methods | {"serve", "compute_shard"}:
        assert hasattr(getattr(modal_app, EXTRACTOR), name)
    for name in methods:
        assert hasattr(Worker, name)


def test_lock_of_the_image_matches_the_project():
    locked = {}
    for line in modal_resources.REQUIREMENTS.read_text().splitlines():
        if line and not line.startswith("#"):
            name, exactly, version = line.partition("==")
            assert exactly, line
            locked[canonicalize_name(name)] = version
    asked = [Requirement(line) for line in requires("actvec")]
    for extra in ("", "server", "data"):
        for one in asked:
            if one.name != "actvec" and (not one.marker or one.marker.evaluate({"extra": extra})):
                assert one.specifier.contains(locked[canonicalize_name(one.name)]), one
    assert "nvidia-cublas" in locked
    assert not {"modal", "pytest"} & locked.keys()


def test_a_deployment_chooses_by_the_environment():
    names = "APP, GPU, MODEL, GPU_SNAPSHOT, IDLE"
    program = f"from actvec.modal.resources import {names}; print({names})"
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
def test_corpus_is_fetched_to_the_volume(monkeypatch, tmp_path, capsys):
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    rows = [json.dumps({"text": f"The bridge was closed in {year}."}) for year in range(30)]
    (dataset / "train.jsonl").write_text("\n".join(rows))
    volume = FolderVolume(tmp_path / "there", tmp_path / "mount")
    (volume.mount / "corpora").mkdir()
    monkeypatch.setattr(corpora, "data", volume)
    monkeypatch.setattr(corpora, "DATA", volume.mount)
    asked = {"dataset": str(dataset), "config": None, "min_words": 3, "seed": 1}
    modal_app.fetch_corpus.local("c4.jsonl", **asked, num_samples=5)
    fetched = (volume.committed / "corpora" / "c4.jsonl").read_text().splitlines()
    assert len(fetched) == 5
    assert "c4.jsonl: 5 documents of " in capsys.readouterr().out
    with pytest.raises(ValueError, match="50 documents were wanted, and it holds 30"):
        modal_app.fetch_corpus.local("all.jsonl", **asked, num_samples=50)


@pytest.mark.filterwarnings("ignore:The fetch_corpus function is executing locally")
@pytest.mark.parametrize("name", ["../means/c.jsonl", "/c.jsonl", "folder/c.jsonl"])
def test_corpus_stays_in_its_folder(name):
    with pytest.raises(ValueError, match="without a folder"):
        modal_app.fetch_corpus.local(name)
