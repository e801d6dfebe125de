"""Hub ids: a model is loaded at one commit, from a local hub or from its cache, or refused."""

import importlib
import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

from actvec.server.engine import PackedEngine
from actvec.server.model import load_model
from actvec.server.step import StepDocument

from ..local_hub import FIRST, LocalHub, Repository
from .conftest import random_neox

MODEL = "somebody/tiny"
UNUSED = (
    *("README.md", "model.gguf", "flax_model.msgpack", "tf_model.h5", "optimizer.pt"),
    *("original/consolidated.00.pth", "original/params.json", "onnx/model.onnx"),
    *("onnx/config.json", "consolidated.safetensors", "model.fp16.safetensors"),
    *("trainer_state.json", "training_args.bin", "tokenizer/notes.txt"),
)


@pytest.fixture(scope="session")
def sharded(neox_directory, tmp_path_factory) -> Path:
    """A model as the hub has them: shards in both formats, and much that nobody loads."""
    folder = tmp_path_factory.mktemp("sharded")
    random_neox().save_pretrained(folder, max_shard_size="400KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(neox_directory / name, folder / name)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    named = {key: name.replace("safetensors", "bin") for key, name in index["weight_map"].items()}
    for name in (*UNUSED, *named.values()):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"unused")
    index["weight_map"] = named
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def hub():
    hub = LocalHub()
    yield hub
    hub.stop()


@pytest.fixture
def at(monkeypatch, tmp_path):
    """Make a hub's address and other variables those of this process; gives them."""

    def set_variables(hub, **variables):
        names = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), **variables}
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in names.items():
            monkeypatch.setenv(name, value)
        importlib.reload(huggingface_hub.constants)
        return names

    yield set_variables
    monkeypatch.undo()
    importlib.reload(huggingface_hub.constants)


@pytest.fixture
def tiny(hub, at, sharded):
    """The repository `somebody/tiny` of the hub that this process asks."""
    at(hub)
    hub.repositories[f"models/{MODEL}"] = Repository(sharded)
    return hub.repositories[f"models/{MODEL}"]


def vectors(directory_or_id, **options):
    loaded = load_model(str(directory_or_id), **options)
    (pools,) = PackedEngine(loaded).run([StepDocument(np.arange(1, 30))])
    return loaded.card, pools


def resolved(requests):
    return [line for line in requests if "/revision/" in line or line.endswith(MODEL)]


def files_of(requests):
    """Names and commits of the files that were asked for."""
    parts = [line.split("/resolve/")[1].split("/", 1) for line in requests if "/resolve/" in line]
    return {name for _, name in parts}, {commit for commit, _ in parts}


def test_model_loads_at_one_commit(hub, tiny, sharded):
    card, pools = vectors(MODEL)
    requests = hub.take_requests()
    assert (card.model, card.revision) == (MODEL, FIRST)
    assert resolved(requests) == [f"GET /api/models/{MODEL}"]
    assert sum("/tree/" in line for line in requests) == 1
    names, commits = files_of(requests)
    assert commits == {FIRST}
    assert names == {
        *(path.name for path in sharded.glob("model-0*.safetensors")),
        *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
    }
    here, expected = vectors(sharded)
    assert here.revision.startswith("sha256:")
    assert np.array_equal(pools, expected)
