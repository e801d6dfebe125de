"""Adapters: merged into the weights as peft computes them, or refused in one line."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from actvec.client import Client
from actvec.server.config import ModelOptions
from actvec.server.engine.load import load_engine
from actvec.server.errors import StartupError
from actvec.server.model.loading import load_model
from actvec.server.program.advice import explained
from tests.local_hub import FIRST, SECOND, Repository
from tests.server.conftest import random_llama, random_neox, save_model
from tests.server.reference import reference_states, relative_error

LAYERS = (1, 3)
IDS = np.arange(3, 60)
LINEAR = ["query_key_value", "dense_4h_to_h"]


def adapted(module, config):
    """peft's model with an adapter of random weights, not merged."""
    torch.manual_seed(1)
    found = peft.get_peft_model(module, config)
    for name, parameter in found.named_parameters():
        if parameter.requires_grad and "magnitude" not in name:
            parameter.data.add_(torch.randn(parameter.shape) * 0.2)
    return found.eval()


def lora(**settings):
    return peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": LINEAR} | settings)


def saved(directory, module, config):
    """The directory of an adapter, and the model that it was saved from."""
    model = adapted(module, config)
    model.save_pretrained(directory)
    return directory, model


def states(model, adapter, **options):
    """`[T, D]` of `IDS`, averaged over the layers, from the server's engine."""
    options = {"layers": LAYERS, "dtype": "float32", "device": "cpu"} | options
    engine, _ = load_engine(ModelOptions(model=str(model), adapter=str(adapter), **options))
    return engine, np.mean(
        [layer[: len(IDS)].numpy() for layer in engine.layer_states([IDS])], axis=0
    )


@pytest.mark.parametrize(
    "config",
    [
        lora(),
        lora(use_rslora=True, use_dora=True, target_modules="all-linear"),
        lora(target_modules=[*LINEAR, "lm_head", "embed_in"]),
        lora(target_modules=r".*\.(query_key_value|dense)|lm_head", exclude_modules=r".*\.1\..*"),
        lora(modules_to_save=["lm_head", "embed_in"]),
        lora(layers_to_transform=[2, 5]),
        lora(trainable_token_indices={"embed_in": IDS.tolist()}),
        peft.IA3Config(target_modules=LINEAR, feedforward_modules=["dense_4h_to_h"]),
        peft.VeraConfig(target_modules=["query_key_value"], r=4),
        peft.TrainableTokensConfig(target_modules=["embed_in"], token_indices=IDS.tolist()),
    ],
    ids=[
        *("lora", "dora", "embeddings", "pattern", "saved", "layers", "lora tokens"),
        *("ia3", "vera", "tokens"),
    ],
)
def test_adapter_is_merged(neox_directory, tmp_path, config):
    adapter, model = saved(tmp_path / "style", random_neox(), config)
    engine, found = states(neox_directory, adapter)
    assert engine.name == "packed"
    assert relative_error(found, reference_states(model, IDS, LAYERS)) < 1e-5
    assert relative_error(found, reference_states(random_neox(), IDS, LAYERS)) > 0.01


KINDS = {
    "ADALORA": {"init_r": 4, "target_r": 2, "total_step": 10},
    "ADAMSS": {"r": 4},
    "BEFT": {},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 16},
    "DEFT": {},
    "DELORA": {"r": 4},
    "FOURIERFT": {"n_frequency": 50},
    "GLORA": {},
    "GRALORA": {"r": 4},
    "HIRA": {"r": 4},
    "HRA": {"r": 4},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "LOHA": {"r": 4, "rank_pattern": {"query_key_value": 2}},
    "LOKR": {"r": 4, "decompose_both": True, "decompose_factor": 4},
    "LORA": {"rank_pattern": {"query_key_value": 2}, "alpha_pattern": {"dense_4h_to_h": 3}},
    "MISS": {"r": 4},
    "OFT": {"r": 0, "oft_block_size": 8},
    "OSF": {},
    "PEANUT": {},
    "PSOFT": {},
    "PVERA": {"target_modules": ["query_key_value"]},
    "RANDLORA": {"target_modules": ["query_key_value"], "r": 4},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 4},
    "SUPERTUNING": {},
    "WAVEFT": {"n_frequency": 50},
}


# The kinds that are used most; the others take seconds altogether.
COMMON = {"ADALORA", "BOFT", "LN_TUNING", "LOHA", "LOKR", "LORA", "OFT", "RANDLORA"}


def of_kind(kind, **settings):
    return peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType[kind]](
        **{"target_modules": LINEAR} | KINDS.get(kind, {}) | settings
    )


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind in COMMON else pytest.mark.slow) for kind in KINDS],
)
def test_merged_weights_are_pefts(neox_directory, tmp_path, kind):
    """Weights, not states: those of random weights amplify the rounding of large changes."""
    adapter, model = saved(tmp_path / "style", random_neox(), of_kind(kind))
    ours = load_model(ModelOptions(str(neox_directory), adapter=str(adapter), layers=LAYERS))
    theirs = dict(model.merge_and_unload().named_parameters())
    before = dict(random_neox().named_parameters())
    changed = 0
    for name, weight in ours.module.named_parameters():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-6, atol=1e-6 * weight.abs().max())
        changed += not torch.equal(weight, before[name])
    assert changed >= 4


@pytest.mark.parametrize("engine", ["packed", "lens"])
def test_adapter_of_tied_tokens_is_merged(tmp_path, engine):
    """The unembedding, which has the same weights, is there for the engine `lens` alone."""
    model = save_model(tmp_path, random_neox(tie_word_embeddings=True))
    tokens = lora(trainable_token_indices={"embed_in": IDS.tolist()})
    adapter, adapted = saved(tmp_path / "style", random_neox(tie_word_embeddings=True), tokens)
    _, found = states(model, adapter, engine=engine)
    assert relative_error(found, reference_states(adapted, IDS, LAYERS)) < 1e-5


def test_reference_engine_merges_too(neox_directory, tmp_path):
    adapter, model = saved(tmp_path / "style", random_neox(), lora())
    _, found = states(neox_directory, adapter, engine="lens")
    assert relative_error(found, reference_states(model, IDS, LAYERS)) < 1e-5


def test_adapter_of_later_blocks_changes_nothing(neox_directory, tmp_path, caplog):
    adapter, _ = saved(tmp_path / "style", random_neox(), lora(layers_to_transform=[4, 5]))
    _, found = states(neox_directory, adapter)
    assert relative_error(found, reference_states(random_neox(), IDS, LAYERS)) < 1e-5
    assert "adapter style changes nothing up to the last target layer" in caplog.text


def test_stamp_names_both(neox_directory, tmp_path):
    adapter, _ = saved(tmp_path / "style", random_neox(), lora())
    card = load_model(ModelOptions(str(neox_directory), adapter=str(adapter))).card
    alone = load_model(ModelOptions(str(neox_directory))).card
    assert card.model == "model + style"
    assert card.revision.startswith(f"{alone.revision} + sha256:")
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name: 2 * tensor for name, tensor in weights.items()},
        adapter / "adapter_model.safetensors",
    )
    other = load_model(ModelOptions(str(neox_directory), adapter=str(adapter))).card
    assert other.revision != card.revision
    assert replace(other, revision=card.revision) == card


def edited(adapter, **settings):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return adapter


def without_weights(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    return adapter


def without_one_tensor(adapter):
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    del weights["base_model.model.gpt_neox.layers.0.mlp.dense_4h_to_h.lora_B.weight"]
    save_file(weights, path)
    return adapter


def damaged(adapter):
    (adapter / "adapter_model.safetensors").write_bytes(b"version https://git-lfs")
    return adapter


def not_finite(adapter):
    path = adapter / "adapter_model.safetensors"
    save_file({name: tensor / 0 for name, tensor in load_file(path).items()}, path)
    return adapter


def refusal(model, adapter):
    with pytest.raises(StartupError) as found:
        load_model(ModelOptions(str(model), adapter=str(adapter), layers=LAYERS))
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize(
    ("module", "config", "message"),
    [
        (
            random_llama,
            lora(target_modules=["q_proj"]),
            r"changes model\.\S*q_proj\S*, which the model does not have: use",
        ),
        (lambda: random_neox(hidden_size=32), lora(), r"does not fit the model: size mismatch"),
        (lambda: random_neox(num_hidden_layers=8), lora(), r"changes \S*layers\.6\.\S*, which"),
        (lambda: random_neox(num_hidden_layers=2), lora(), r"lacks \S*layers\.2\."),
        (
            random_neox,
            peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
            "cannot be merged into weights: it is of kind PROMPT_TUNING$",
        ),
        # These depend on all blocks, and the server loads fewer.
        (random_neox, of_kind("FROD"), "it is of kind FROD; merge it with peft"),
        (random_neox, of_kind("UNILORA"), "it is of kind UNILORA; merge it with peft"),
        (
            random_neox,
            peft.VeraConfig(target_modules=["query_key_value"], r=4, save_projection=False),
            r"projection, of kind VERA, was not saved \(save_projection=False\); merge it",
        ),
    ],
    ids=[*("family", "width", "deeper", "shallower", "prompt"), *("frod", "unilora", "unsaved")],
)
def test_adapter_of_another_model_is_refused(neox_directory, tmp_path, module, config, message):
    adapter, _ = saved(tmp_path / "style", module(), config)
    assert re.search(message, refusal(neox_directory, adapter))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_one_tensor, r"lacks \S*layers\.0\.mlp\.dense_4h_to_h\.lora_B"),
        (without_weights, r"has no weights: no adapter_model\.safetensors or"),
        (damaged, "'style' does not fit the model: "),
        (not_finite, "'style' does not fit the model: .*NaNs"),
        (
            lambda adapter: edited(adapter, layer_replication=[[0, 4], [2, 6]]),
            "cannot be merged into weights: it is of kind LORA with replicated layers",
        ),
        (
            lambda adapter: edited(adapter, peft_type="ABACUS"),
            "'style' does not fit the model: .*ABACUS",
        ),
    ],
    ids=["cut", "empty", "damaged", "infinite", "replicated", "unknown"],
)
def test_broken_adapter_is_refused(neox_directory, tmp_path, change, message):
    adapter, _ = saved(tmp_path / "style", random_neox(), lora())
    change(adapter)
    assert re.search(message, refusal(neox_directory, adapter))


def test_model_is_no_adapter(neox_directory):
    with pytest.raises(StartupError, match=r"is not an adapter: it has no adapter_config\.json"):
        load_model(ModelOptions("demo", adapter=str(neox_directory)))


def test_adapter_is_no_model(tmp_path):
    adapter, _ = saved(tmp_path / "style", random_neox(), lora())
    edited(adapter, base_model_name_or_path="EleutherAI/pythia-70m")
    with pytest.raises(StartupError, match="is an adapter for EleutherAI/pythia-70m,") as error:
        load_model(ModelOptions(str(adapter)))
    assert explained(error.value).endswith("--model, and the adapter with --adapter")


def test_adapter_needs_its_extra(neox_directory, tmp_path, monkeypatch):
    adapter, _ = saved(tmp_path / "style", random_neox(), lora())
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(StartupError, match=r"pip install 'actvec\[adapter\]'"):
        load_model(ModelOptions(str(neox_directory), adapter=str(adapter)))


@pytest.fixture
def hub(local_hub, ask_hub, neox_directory, tmp_path):
    """A hub with a model and an adapter of it."""
    adapter, _ = saved(tmp_path / "style", random_neox(), lora())
    edited(adapter, base_model_name_or_path="somebody/tiny")
    local_hub.repositories["models/somebody/tiny"] = Repository(neox_directory)
    local_hub.repositories["models/somebody/style"] = Repository(adapter)
    ask_hub(local_hub)
    return local_hub


def test_adapter_of_the_hub_has_its_commit(hub, ask_hub, neox_directory, tmp_path):
    hub.repositories["models/somebody/style"].refs = {"main": FIRST, "v2": SECOND}
    loaded = load_model(
        ModelOptions("somebody/tiny", adapter="somebody/style", adapter_revision="v2")
    )
    assert loaded.card.model == "somebody/tiny + somebody/style"
    assert loaded.card.revision == f"{FIRST} + {SECOND}"
    ask_hub(hub, HF_HUB_OFFLINE="1")
    again = load_model(
        ModelOptions("somebody/tiny", adapter="somebody/style", adapter_revision="v2")
    )
    assert again.card == loaded.card
    here = load_model(ModelOptions(str(neox_directory), adapter=str(tmp_path / "style")))
    for one, other in zip(here.module.parameters(), loaded.module.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("hub")
def test_adapter_of_the_hub_is_no_model():
    with pytest.raises(StartupError, match="'somebody/style' is an adapter for somebody/tiny"):
        load_model(ModelOptions("somebody/style"))
    with pytest.raises(StartupError, match="it is not an adapter in peft's layout"):
        load_model(ModelOptions("somebody/tiny", adapter="somebody/tiny"))


def test_server_serves_an_adapter(start_server, tmp_path):
    model = save_model(tmp_path, random_neox())
    adapter, _ = saved(tmp_path / "style", random_neox(), lora())
    server = start_server("--model", str(model), "--adapter", str(adapter))
    with Client(server.target) as client:
        assert client.info().model == "model + style"
