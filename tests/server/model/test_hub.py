"""Hub ids: a model is loaded at one commit, from a local hub or from its cache, or refused."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from actvec.client import Client
from actvec.modal import corpora as modal_corpora
from actvec.server.config import ModelOptions
from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.step import StepDocument
from actvec.server.errors import StartupError
from actvec.server.model.hub import ADAPTER, hub_snapshot
from actvec.server.model.loading import load_model
from tests.conftest import NotStartedError
from tests.local_hub import FIRST, SECOND, Repository
from tests.server.conftest import random_neox
from tests.volume import FolderVolume

MODEL = "somebody/tiny"
TOKEN = "hf_of_the_tests"  # noqa: S105 - of the tests
# `huggingface_hub` reads its variables at its import, which a warm program has done before.
PROGRAM = (
    "import importlib, huggingface_hub.constants as constants; importlib.reload(constants);"
    " from actvec.server.program.main import main; main()"
)
FACTS = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
UNUSED = (
    *("README.md", "model.gguf", "flax_model.msgpack", "tf_model.h5", "optimizer.pt"),
    *("original/consolidated.00.pth", "original/params.json", "onnx/model.onnx"),
    *("onnx/config.json", "consolidated.safetensors", "model.fp16.safetensors"),
    *("trainer_state.json", "training_args.bin", "tokenizer/notes.txt"),
)


@pytest.fixture(scope="session")
def sharded(neox_directory, tmp_path_factory) -> Path:
    """A model in the hub's layout: shards in two formats, and many files that nobody loads."""
    folder = tmp_path_factory.mktemp("sharded")
    random_neox().save_pretrained(folder, max_shard_size="400KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(neox_directory / name, folder / name)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    named = {key: name.replace("safetensors", "bin") for key, name in index["weight_map"].items()}
    for name in (*UNUSED, *named.values()):
        write(folder, name, b"unused")
    index["weight_map"] = named
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def hub(local_hub, ask_hub, sharded):
    """The hub that this process asks, with one model."""
    local_hub.repositories[f"models/{MODEL}"] = Repository(sharded)
    ask_hub(local_hub)
    return local_hub


@pytest.fixture
def tiny(hub):
    """The repository of that model."""
    return hub.repositories[f"models/{MODEL}"]


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def repository_of(folder, names):
    """Files that are empty, except for the indexes of shards."""
    for name in names:
        kind = name.removesuffix(".index.json").rpartition(".")[2]
        shards = [other for other in names if "-of-" in other and other.endswith(kind)]
        index = {"weight_map": dict(enumerate(shards))}
        write(folder, name, json.dumps(index).encode() if "index" in name else b"{}")
    return Repository(folder)


def vectors(directory_or_id, **options):
    loaded = load_model(ModelOptions(str(directory_or_id), **options))
    (pools,) = PackedEngine(loaded).run([StepDocument.of(np.arange(1, 30), "long")])
    return loaded.card, pools


def resolutions(requests):
    return [line for line in requests if "/revision/" in line or line.endswith(f"/models/{MODEL}")]


def files_of(requests):
    """Names and commits of the requested files."""
    parts = [line.split("/resolve/")[1].split("/", 1) for line in requests if "/resolve/" in line]
    return {name for _, name in parts}, {commit for commit, _ in parts}


def weights_in(directory):
    return {path.name for path in directory.iterdir() if path.suffix in {".safetensors", ".bin"}}


def test_model_loads_at_one_commit(hub, tiny, sharded):
    # The branch moves during the model's download.
    tiny.folders = {FIRST: sharded}
    hub.on_request = lambda line: tiny.refs.update(main=SECOND) if "/tree/" in line else None
    card, pools = vectors(MODEL)
    requests = hub.take_requests()
    assert (card.model, card.revision) == (MODEL, FIRST)
    assert resolutions(requests) == [f"GET /api/models/{MODEL}"]
    assert [line for line in requests if "/tree/" in line] == [
        f"GET /api/models/{MODEL}/tree/{FIRST}"
    ]
    names, commits = files_of(requests)
    assert commits == {FIRST}
    indexes = {"model.safetensors.index.json", "pytorch_model.bin.index.json"}
    assert names == FACTS | indexes | {p.name for p in sharded.glob("model-0*.safetensors")}
    here, expected = vectors(sharded)
    assert here.revision.startswith("sha256:")
    assert np.array_equal(pools, expected)


@pytest.mark.parametrize("revision", [None, "step3000", "v1", "refs/pr/1", SECOND])
def test_revision_is_branch_tag_or_commit(hub, tiny, ask_hub, revision):
    tiny.refs = {"main": SECOND, "step3000": SECOND, "v1": SECOND, "refs/pr/1": SECOND}
    found = hub_snapshot(MODEL, revision)
    assert (found.commit, found.directory.name) == (SECOND, SECOND)
    requests = hub.take_requests()
    assert len(resolutions(requests)) == (revision != SECOND)
    assert files_of(requests)[1] == {SECOND}
    ask_hub(hub, HF_HUB_OFFLINE="1")
    assert hub_snapshot(MODEL, revision) == found
    assert hub.requests == []


def test_cached_model_loads_offline(hub, ask_hub, caplog):
    online, pools = vectors(MODEL)
    hub.take_requests()
    again = hub_snapshot(MODEL)
    asked = [line for line in hub.take_requests() if "agent-harnesses" not in line]
    assert asked == [f"GET /api/models/{MODEL}"]
    ask_hub(hub, HF_HUB_OFFLINE="1")
    caplog.clear()
    offline, same = vectors(MODEL)
    assert hub.requests == []
    assert not [record for record in caplog.records if record.name.startswith("huggingface_hub")]
    assert (online, again.commit) == (offline, online.revision)
    assert np.array_equal(pools, same)


@pytest.mark.parametrize("outage", ["no network", "hub down"])
def test_cached_model_loads_without_hub(hub, outage):
    found = hub_snapshot(MODEL)
    if outage == "no network":
        hub.stop()
    else:
        hub.status = 503
    assert hub_snapshot(MODEL) == found
    assert load_model(ModelOptions(MODEL)).card.revision == FIRST


def test_cache_of_other_programs_loads_offline(hub, ask_hub, sharded, tmp_path):
    """Blobs, a ref and a snapshot of links, without the listing that newer libraries leave."""
    root = tmp_path / "home" / "hub" / "models--somebody--tiny"
    for path in (*sharded.glob("*.json"), *sharded.glob("model-0*.safetensors")):
        content = path.read_bytes()
        blob = hashlib.sha256(content).hexdigest()
        write(root, f"blobs/{blob}", content)
        link = root / "snapshots" / SECOND / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../blobs/{blob}")
    write(root, "refs/main", SECOND.encode())
    ask_hub(hub, HF_HUB_OFFLINE="1")
    card, pools = vectors(MODEL)
    assert (card.revision, hub.requests) == (SECOND, [])
    assert np.array_equal(pools, vectors(sharded)[1])
    next(link.parent.glob("model-00002-*")).unlink()
    with pytest.raises(StartupError, match=r"lacks model-00002-.*HF_HUB_OFFLINE is set"):
        load_model(ModelOptions(MODEL))


def test_gated_model_loads_with_token(hub, tiny, ask_hub):
    tiny.gate = TOKEN
    ask_hub(hub, HF_TOKEN=TOKEN)
    assert hub_snapshot(MODEL).commit == FIRST


SAFE = ("model-1-of-2.safetensors", "model-2-of-2.safetensors")
BINARY = ("pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin")


@pytest.mark.parametrize(
    ("names", "fetched"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["model.safetensors.index.json", *SAFE, "pytorch_model.bin"], SAFE),
        (["model.safetensors", "model.safetensors.index.json", *SAFE], ["model.safetensors"]),
        (["pytorch_model.bin", "consolidated.safetensors"], ["pytorch_model.bin"]),
        (["pytorch_model.bin.index.json", *BINARY, "adapter_model.bin"], BINARY),
    ],
)
def test_one_format_of_weights_is_fetched(hub, tmp_path, names, fetched):
    hub.repositories[f"models/{MODEL}"] = repository_of(tmp_path / "r", ["config.json", *names])
    assert weights_in(hub_snapshot(MODEL).directory) == set(fetched)


def test_weights_that_config_names_are_fetched(hub, tmp_path):
    names = ["model.safetensors", "other.safetensors"]
    hub.repositories[f"models/{MODEL}"] = repository_of(tmp_path / "r", names)
    write(tmp_path / "r", "config.json", b'{"transformers_weights": "other.safetensors"}')
    assert weights_in(hub_snapshot(MODEL).directory) == {"other.safetensors"}


def test_adapter_and_templates_are_fetched(hub, tmp_path):
    names = ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"]
    names += ["additional_chat_templates/tools.jinja", "chat_template.jinja", "tokenizer.model"]
    hub.repositories[f"models/{MODEL}"] = repository_of(tmp_path / "r", names)
    found = hub_snapshot(MODEL, files=ADAPTER).directory
    present = {str(p.relative_to(found)) for p in found.rglob("*") if p.is_file()}
    assert present == {name for name in names if not name.endswith(".bin")}


def test_broken_download_resumes(hub, tiny, ask_hub, tmp_path):
    third = "model-00003-of-00006.safetensors"
    tiny.gone = {third}
    with pytest.raises(StartupError, match=r"cannot download model .*RemoteEntryNotFoundError"):
        hub_snapshot(MODEL)
    # Files are fetched in parallel, so others may be missing too.
    there = {path.name for path in tmp_path.glob(f"home/hub/*/snapshots/{FIRST}/*")}
    assert there
    ask_hub(hub, HF_HUB_OFFLINE="1")
    with pytest.raises(StartupError, match="does not hold all of model 'somebody/tiny'"):
        hub_snapshot(MODEL)
    ask_hub(hub)
    tiny.gone, tiny.cut = set(), {third}
    hub.take_requests()
    whole = {path.name for path in hub_snapshot(MODEL).directory.iterdir()}
    assert files_of(hub.take_requests()) == (whole - there, {FIRST})
    assert third in whole - there


@pytest.mark.parametrize(
    "refused",
    [
        ({"gate": TOKEN}, {}, "is gated: accept its license at {hub}/{model}, and set HF_TOKEN"),
        ({"gate": TOKEN}, {"HF_TOKEN": "hf_no"}, "is gated, and the token in HF_TOKEN may not"),
        ({"model": "some/nothing"}, {}, "no model 'some/nothing', or it is private and needs a"),
        ({"model": "some/nothing"}, {"HF_TOKEN": "hf_no"}, "or it is closed to the token in"),
        ({"model": "no--id"}, {}, "'no--id' is neither a directory here nor the id of a model"),
        ({"revision": "v9"}, {}, "has no revision 'v9' on the hub: name one of its branches"),
        ({"revision": "c" * 40}, {}, f"has no revision '{'c' * 40}' on the hub"),
        ({"status": 429}, {}, "cannot download model '{model}' from {hub} (HfHubHTTPError: 429"),
        ({"status": 401}, {"HF_TOKEN": "hf_no"}, "the hub refuses the token in HF_TOKEN (Client"),
        ({"status": 503}, {}, "the hub {hub} cannot be reached (Server error '503"),
        ({"down": True}, {}, "cannot be reached ([Errno 111] Connection refused), and the cache"),
        (
            {"down": True},
            {"HF_HUB_OFFLINE": "1"},
            "is set, and the cache {cache} does not hold all of",
        ),
        ({"revision": "c" * 40}, {"HF_HUB_OFFLINE": "1"}, "not hold all of revision 'cccc"),
        ({"files": ["README.md"]}, {}, f"'somebody/tiny' at commit {FIRST} has no config.json"),
        ({"files": ["config.json", "model.gguf"]}, {}, "no model.safetensors or pytorch_model.bin"),
        ({"files": ["config.json", "model.safetensors.index.json"]}, {}, "names no shards"),
    ],
    ids=lambda refused: refused[2],
)
def test_refusal_is_one_line(hub, tiny, ask_hub, tmp_path, refused):
    change, variables, message = refused
    ask_hub(hub, **variables)
    tiny.gate = change.get("gate")
    hub.status = change.get("status")
    if "files" in change:
        tiny.folder = repository_of(tmp_path / "other", change["files"]).folder
    if change.get("down"):
        hub.stop()
    with pytest.raises(StartupError) as error:
        load_model(ModelOptions(change.get("model", MODEL), revision=change.get("revision")))
    names = {"hub": hub.address, "model": MODEL, "cache": tmp_path / "home" / "hub"}
    assert message.format(**names) in str(error.value)
    assert "\n" not in str(error.value)


def test_server_of_hub_id_serves_its_commit(hub, ask_hub, start_server):
    variables = ask_hub(hub)
    server = start_server(f"--model={MODEL}", "--revision=main", env=variables, program=PROGRAM)
    with Client(server.target) as client:
        info = client.info()
    assert (info.model, info.revision) == (MODEL, FIRST)
    server.stop()


def test_server_without_hub_id_ends_in_one_line(hub, ask_hub, start_server):
    with pytest.raises(NotStartedError) as ended:
        start_server("--model=some/nothing", env=ask_hub(hub), program=PROGRAM)
    assert (ended.value.code, ended.value.output) == (2, "")
    assert ended.value.log == (
        "actvec-server: the hub has no model 'some/nothing', or it is private and needs a token in"
        " HF_TOKEN\n"
    )


@pytest.mark.filterwarnings("ignore:The download function is executing locally")
def test_worker_on_modal_loads_what_was_downloaded(hub, tiny, ask_hub, monkeypatch, tmp_path):
    tiny.gate = TOKEN
    ask_hub(hub, HF_TOKEN=TOKEN)
    monkeypatch.setattr(modal_corpora, "weights", FolderVolume(tmp_path / "v", tmp_path / "mount"))
    modal_corpora.download.local(MODEL)
    names, commits = files_of(hub.take_requests())
    assert commits == {FIRST}
    assert {name for name in names if name.endswith(".bin")} == set()
    ask_hub(hub, HF_HUB_OFFLINE="1")
    volume = {path: path.lstat().st_mtime_ns for path in (tmp_path / "home").rglob("*")}
    assert load_model(ModelOptions(MODEL)).card.revision == FIRST
    assert hub.requests == []
    # Workers mount it read-only.
    assert {path: path.lstat().st_mtime_ns for path in (tmp_path / "home").rglob("*")} == volume
