"""Tokenizers of hub ids, with which `plan` and `corpus inspect` count, from a local hub."""

import sys
from importlib.resources import files
from pathlib import Path

import pytest

from actvec.client import MissingExtra, UnsupportedInput
from actvec.client.corpora import TokenCounter
from tests.local_hub import FIRST, SECOND, Repository

MODEL = "EleutherAI/pythia-12b"
TOKENIZER = Path(str(files("actvec.server").joinpath("model", "demo", "tokenizer.json")))
TEXTS = ["one two three", "fünf", ""]


@pytest.fixture
def hub(local_hub, ask_hub, tmp_path):
    """The hub that this process asks, with one model."""
    (tmp_path / "model").mkdir()
    for name in ("model.safetensors", "pytorch_model.bin", "config.json"):
        (tmp_path / "model" / name).write_bytes(b"unused")
    (tmp_path / "model" / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    local_hub.repositories[f"models/{MODEL}"] = Repository(tmp_path / "model")
    ask_hub(local_hub)
    return local_hub


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("one two three")
    return tmp_path / "corpus"


def asked(hub):
    return [line for line in hub.take_requests() if "agent-harnesses" not in line]


def test_tokenizer_alone_is_fetched_at_one_commit(hub):
    repository = hub.repositories[f"models/{MODEL}"]
    repository.folders = {FIRST: repository.folder}
    # The branch moves after it is resolved.
    hub.on_request = lambda line: repository.refs.update(main=SECOND) if "HEAD" in line else None
    assert TokenCounter(MODEL).count(TEXTS) == TokenCounter(str(TOKENIZER)).count(TEXTS)
    file = f"/{MODEL}/resolve/{FIRST}/tokenizer.json"
    assert asked(hub) == [f"GET /api/models/{MODEL}", f"HEAD {file}", f"GET {file}"]


def test_cached_tokenizer_needs_no_hub(hub, ask_hub):
    TokenCounter(MODEL)
    asked(hub)
    TokenCounter(MODEL)
    assert asked(hub) == [f"GET /api/models/{MODEL}"]
    ask_hub(hub, HF_HUB_OFFLINE="1")
    TokenCounter(MODEL)
    assert hub.requests == []
    ask_hub(hub)
    hub.stop()
    TokenCounter(MODEL)


@pytest.mark.parametrize(
    "refused",
    [
        ({"gate": "hf_yes"}, {}, "is gated: accept its license at {hub}/{name} with your account,"),
        ({"gate": "hf_yes"}, {"HF_TOKEN": "hf_no"}, "with the account of the token in HF_TOKEN"),
        ({"name": "some/nothing"}, {}, "no such model, or it is private and needs a token"),
        ({"name": "some/nothing"}, {"HF_TOKEN": "hf_no"}, "or it is closed to the token in"),
        ({"name": "no--id"}, {}, "this is neither a file or folder here nor the id of a model"),
        ({"gone": {"tokenizer.json"}}, {}, "it has no tokenizer.json; give a file or a folder"),
        ({"status": 429}, {}, "from the hub: HfHubHTTPError: 429"),
        ({"down": True}, {}, "{hub} cannot be reached ([Errno 111] Connection refused), and"),
        ({"down": True}, {"HF_HUB_OFFLINE": "1"}, "is set, and the cache {cache} does not hold it"),
    ],
    ids=lambda refused: refused[2],
)
def test_refusal_is_one_line(hub, ask_hub, program, corpus, refused):
    change, variables, message = refused
    ask_hub(hub, **variables)
    repository = hub.repositories[f"models/{MODEL}"]
    repository.gate, repository.gone = change.get("gate"), change.get("gone", set())
    hub.status = change.get("status")
    if change.get("down"):
        hub.stop()
    name = change.get("name", MODEL)
    code, output, errors = program("corpus", "inspect", corpus, "--tokenizer", name)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert f"cannot load a tokenizer of '{name}' from the hub: " in errors
    names = {"hub": hub.address, "name": name, "cache": corpus.parent / "home" / "hub"}
    assert message.format(**names) in errors


def test_gated_tokenizer_counts_with_token(hub, ask_hub, program, corpus):
    hub.repositories[f"models/{MODEL}"].gate = "hf_yes"
    ask_hub(hub, HF_TOKEN="hf_yes")
    # `--model` defaults to this model.
    code, output, _ = program("plan", corpus, "--gpu", "A100-80GB", "--json")
    assert code == 0
    assert f'"tokens": {TokenCounter(str(TOKENIZER)).count(["one two three"])[0]}' in output


def test_damaged_tokenizer_is_refused(hub):
    (hub.repositories[f"models/{MODEL}"].folder / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(UnsupportedInput, match=f"cannot load the tokenizer .*{FIRST}"):
        TokenCounter(MODEL)


def test_hub_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"pip install 'actvec\[data\]'"):
        TokenCounter(MODEL)
