"""Loading: from a name to the necessary blocks, and to a correct card."""

import json
import shutil
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file, save_file

from actvec.server.config import ModelOptions
from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.step import StepDocument
from actvec.server.errors import StartupError
from actvec.server.model.loading import default_layers, load_model
from tests.server.conftest import random_neox, save_model


def test_default_layers_are_pythias():
    assert default_layers(36) == (25, 26, 27)


@pytest.mark.parametrize(
    ("n_layers", "layers"),
    [(1, (0,)), (2, (0, 1)), (4, (1, 2, 3)), (6, (2, 3, 4)), (24, (16, 17, 18))],
)
def test_default_layers_end_at_three_quarters(n_layers, layers):
    assert default_layers(n_layers) == layers


def test_the_demo_card(demo_model):
    card = demo_model.card
    assert (card.model, card.architecture) == ("demo", "GPTNeoXForCausalLM")
    assert (card.n_layers, card.layers, card.d_model, card.context) == (8, (4, 5, 6), 128, 4096)
    assert (card.dtype, card.device, card.hook) == ("float32", "cpu", "resid_post")


def test_demo_model_is_always_the_same(demo_model):
    again = load_model(ModelOptions())
    assert again.card == demo_model.card
    assert again.card.revision.startswith("sha256:")


def test_later_blocks_and_the_head_stay_unread(neox_directory, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(neox_directory, bare)
    weights = load_file(bare / "model.safetensors")
    unused = [name for name in weights if "layers.5." in name or "embed_out" in name]
    assert len(unused) == 12 + 1
    kept = {name: tensor for name, tensor in weights.items() if name not in unused}
    save_file(kept, bare / "model.safetensors", metadata={"format": "pt"})

    model = load_model(ModelOptions(str(bare)))
    whole = load_model(ModelOptions(str(neox_directory)))
    parameters = dict(model.module.named_parameters())
    assert not any("layers.5." in name for name in parameters)
    assert sum(tensor.numel() for tensor in parameters.values()) == sum(
        tensor.numel() for tensor in kept.values()
    )
    for name, parameter in whole.module.named_parameters():
        assert torch.equal(parameter, parameters[name])


def test_missing_weights_are_an_error(neox_directory, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(neox_directory, broken)
    weights = load_file(broken / "model.safetensors")
    del weights["gpt_neox.layers.2.mlp.dense_h_to_4h.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StartupError, match=r"layers\.2\.mlp\.dense_h_to_4h\.weight"):
        load_model(ModelOptions(str(broken)))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9\n",
        None,
    ],
    ids=["empty", "of git-lfs", "cut"],
)
def test_truncated_weights_are_reported(neox_directory, tmp_path, name, content):
    damaged = tmp_path / "damaged"
    shutil.copytree(neox_directory, damaged)
    weights = damaged / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    (damaged / name).write_bytes(whole[:-100] if content is None else content)
    with pytest.raises(StartupError, match=r"weights are damaged .* download it again") as error:
        load_model(ModelOptions(str(damaged)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(dtype, neox_directory):
    model = load_model(ModelOptions(str(neox_directory), dtype=dtype))
    assert model.card.dtype == dtype
    assert {str(p.dtype) for p in model.module.parameters()} == {f"torch.{dtype}"}


def test_layers_are_sorted_and_each_counts_once(neox_directory):
    assert load_model(ModelOptions(str(neox_directory), layers=(3, 1, 3))).card.layers == (1, 3)


def test_an_unknown_layer_says_which_there_are(neox_directory):
    with pytest.raises(StartupError, match="no layer 6, 40: the model has blocks 0 to 5"):
        load_model(ModelOptions(str(neox_directory), layers=(2, 6, 40)))


def test_a_revision_changes_with_the_weights(neox_directory, tmp_path):
    other = save_model(tmp_path, random_neox(seed=1))
    ours, theirs = (
        load_model(ModelOptions(str(neox_directory))).card,
        load_model(ModelOptions(str(other))).card,
    )
    assert ours.revision != theirs.revision
    assert ours.tokenizer_sha256 == theirs.tokenizer_sha256


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no model directory"),
        ({}, "has no config.json"),
        ({"config.json": "{"}, "cannot read model"),
        ({"config.json": '{"model_type": "nope"}'}, "cannot read model"),
    ],
    ids=["absent", "empty", "bad json", "unknown type"],
)
def test_directory_without_a_model_is_reported(files, message, tmp_path):
    path = tmp_path / "model"
    if files is not None:
        path.mkdir()
        for name, text in files.items():
            (path / name).write_text(text)
    with pytest.raises(StartupError, match=message) as error:
        load_model(ModelOptions(str(path)))
    assert "\n" not in str(error.value)


def test_missing_device_is_reported():
    with pytest.raises(StartupError, match="cannot use device 'abacus'"):
        load_model(ModelOptions("demo", device="abacus"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "clip_text_model", "hidden_size": 8, "num_hidden_layers": 2},
            "'clip_text_model' is not a causal language model",
        ),
        ({"model_type": "clip"}, "'clip' is not a causal language model"),
        ({"model_type": "bart"}, "'bart' model is an encoder and a decoder"),
        ({"model_type": "t5"}, "'t5' model is an encoder and a decoder"),
        ({"model_type": "bloom"}, "does not name its context"),
    ],
)
def test_unsupported_model_is_refused(tmp_path, neox_directory, config, message):
    shutil.copytree(neox_directory, tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(StartupError, match=message):
        load_model(ModelOptions(str(tmp_path / "other")))


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "requires bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "requires optimum"),
        ({"quant_method": "abacus"}, "quantized by 'abacus', which transformers does not know"),
        ({"bits": 4}, "quantized by None, which transformers does not know"),
    ],
)
def test_quantization_needs_its_library(neox_directory, tmp_path, quantization, message):
    shutil.copytree(neox_directory, tmp_path / "quantized")
    path = tmp_path / "quantized" / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"quantization_config": quantization})
    )
    with pytest.raises(StartupError, match=message):
        load_model(ModelOptions(str(tmp_path / "quantized")))


@pytest.mark.parametrize("name", ["weight_scale_inv", "weight_scale", "SCB"])
def test_undeclared_quantization_is_refused(neox_directory, tmp_path, name):
    """The weights have the right shapes: without their factors they would be taken as they are."""
    shutil.copytree(neox_directory, tmp_path / "quantized")
    path = tmp_path / "quantized" / "model.safetensors"
    weights = load_file(path)
    layer = "gpt_neox.layers.0.mlp.dense_h_to_4h"
    weights[f"{layer}.weight"] = weights[f"{layer}.weight"].to(torch.float8_e4m3fn)
    weights[f"{layer}.{name}"] = torch.ones(4, 4)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(
        StartupError, match=rf"quantized, with \S*{name}, and .* has no quantization_config"
    ):
        load_model(ModelOptions(str(tmp_path / "quantized")))


def test_missing_file_of_weights_is_named(neox_directory, tmp_path):
    shutil.copytree(neox_directory, tmp_path / "cut")
    random_neox().save_pretrained(tmp_path / "cut", max_shard_size="200KB")
    lost = sorted((tmp_path / "cut").glob("model-*.safetensors"))[1]
    lost.unlink()
    (tmp_path / "cut" / "model.safetensors").unlink(missing_ok=True)
    with pytest.raises(
        StartupError, match=rf"a file of its weights is missing \({lost.name}\); download it again"
    ):
        load_model(ModelOptions(str(tmp_path / "cut")))


def test_a_sharded_checkpoint_loads(neox_directory, tmp_path):
    module = random_neox()
    sharded = tmp_path / "sharded"
    module.save_pretrained(sharded, max_shard_size="200KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(neox_directory / name, sharded / name)
    assert len(list(sharded.glob("*.safetensors"))) > 2
    whole, shards = (
        load_model(ModelOptions(str(neox_directory))),
        load_model(ModelOptions(str(sharded))),
    )
    ids = torch.arange(1, 30).numpy()
    documents = [StepDocument.of(ids, "long")]
    (ours,), (theirs,) = (PackedEngine(one).run(documents) for one in (whole, shards))
    assert (ours == theirs).all()


def test_model_beside_code_of_strangers_is_transformers_own(neox_directory, tmp_path, caplog):
    strange = tmp_path / "strange"
    shutil.copytree(neox_directory, strange)
    (strange / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = json.loads((strange / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "theirs.Model"}, "architectures": ["Model"]}
    (strange / "config.json").write_text(json.dumps(config))
    assert load_model(ModelOptions(str(strange))).card.architecture == "GPTNeoXForCausalLM"
    assert "code of its own, which never runs: transformers' GPTNeoXForCausalLM" in caplog.text
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("place", ["config.json", "tokenizer_config.json"])
def test_code_of_strangers_never_runs(neox_directory, tmp_path, monkeypatch, place):
    strange = tmp_path / "strange"
    shutil.copytree(neox_directory, strange)
    (strange / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = json.loads((strange / place).read_text())
    if place == "config.json":
        config |= {"model_type": "strange", "auto_map": {"AutoConfig": "theirs.Config"}}
    else:
        config |= {"tokenizer_class": "Strange", "auto_map": {"AutoTokenizer": ["theirs.T", None]}}
    (strange / place).write_text(json.dumps(config))
    # As a user at a terminal may answer without reading.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    # A tokenizer.json loads without it; a config does not.
    refused = pytest.raises(StartupError, match="custom code")
    with refused if place == "config.json" else nullcontext():
        load_model(ModelOptions(str(strange)))
    assert not (tmp_path / "ran").exists()
