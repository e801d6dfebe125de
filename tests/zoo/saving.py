"""Model directories in people's formats: one file, shards, `.bin`, 16 bits, adapters beside."""

import json
from collections.abc import Callable
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from actvec.server.model.demo import TOKENIZER_CONFIG, VOCABULARY

_SQUARE = 16

Save = Callable[[PreTrainedModel, Path], None]
"""Writes a model into an existing directory. It may change the module, which remains the reference.
"""


def one_file(module: PreTrainedModel, directory: Path) -> None:
    """`model.safetensors`, config and tokenizer."""
    module.save_pretrained(directory)
    write_tokenizer(directory)


def sharded(module: PreTrainedModel, directory: Path) -> None:
    """Several safetensors files and their index."""
    module.save_pretrained(directory, max_shard_size="200KB")
    write_tokenizer(directory)


def sixteen_bits(module: PreTrainedModel, directory: Path) -> None:
    """Weights in bfloat16; the module keeps the rounded values, in float32."""
    one_file(deepcopy(module).to(torch.bfloat16), directory)
    # Not through `Module.to`: the frequencies of rotary embeddings are never in 16 bits.
    for parameter in module.parameters():
        parameter.copy_(parameter.to(torch.bfloat16))


def eight_bits(module: PreTrainedModel, directory: Path) -> None:
    """Linear layers of the blocks in float8, a factor per square; the module keeps the values."""
    quantized = {}
    for name, layer in module.named_modules():
        if ".layers." in name and isinstance(layer, nn.Linear):
            rows, columns = layer.weight.shape
            squares = layer.weight.view(rows // _SQUARE, _SQUARE, columns // _SQUARE, _SQUARE)
            factors = squares.abs().amax((1, 3)) / torch.finfo(torch.float8_e4m3fn).max
            small = (squares / factors[:, None, :, None]).to(torch.float8_e4m3fn)
            quantized[f"{name}.weight"] = small.view(rows, columns)
            quantized[f"{name}.weight_scale_inv"] = factors
            layer.weight.copy_((small.float() * factors[:, None, :, None]).view(rows, columns))
    one_file(module, directory)
    weights = load_file(directory / "model.safetensors") | quantized
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    how = {"quant_method": "fp8", "weight_block_size": [_SQUARE, _SQUARE]}
    edit_config(directory, quantization_config=how)


def pytorch_bin(module: PreTrainedModel, directory: Path) -> None:
    """`pytorch_model.bin`, as before safetensors."""
    one_file(module, directory)
    weights = load_file(directory / "model.safetensors")
    torch.save(weights, directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


def without_bos(module: PreTrainedModel, directory: Path) -> None:
    """A tokenizer and a config without BOS, like Qwen's."""
    module.save_pretrained(directory)
    edit_config(directory, bos_token_id=None)
    settings = {key: value for key, value in TOKENIZER_CONFIG.items() if key != "bos_token"}
    write_tokenizer(directory, settings)


def bos_beyond_the_embedding(module: PreTrainedModel, directory: Path) -> None:
    """A BOS that was added to the tokenizer, but not to the weights."""
    module.save_pretrained(directory)
    write_tokenizer(directory, TOKENIZER_CONFIG | {"bos_token": "<|added|>"})


def other_vocabulary(module: PreTrainedModel, directory: Path) -> None:
    """A config whose vocabulary is larger than the weights'."""
    one_file(module, directory)
    edit_config(directory, vocab_size=VOCABULARY + 64)


def unknown_tensor(module: PreTrainedModel, directory: Path) -> None:
    """A checkpoint with a tensor that the architecture has no place for."""
    one_file(module, directory)
    weights = load_file(directory / "model.safetensors")
    weights["model.layers.0.self_attn.extra_gate.weight"] = torch.ones(4, 4)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def unknown_quantization(module: PreTrainedModel, directory: Path) -> None:
    """A config that names a quantization that transformers does not know."""
    one_file(module, directory)
    edit_config(directory, quantization_config={"quant_method": "abacus", "bits": 3})


def beside_an_adapter(module: PreTrainedModel, directory: Path) -> None:
    """Base weights with a LoRA adapter in the same directory."""
    one_file(module, directory)
    _write_adapter(module, directory, base=directory)


def under_an_adapter(module: PreTrainedModel, directory: Path) -> None:
    """Base weights, and the adapter in `adapter/`; the module keeps the merged weights."""
    one_file(module, directory)
    (directory / "adapter").mkdir()
    _write_adapter(module, directory / "adapter", base=directory)


@torch.no_grad()
def _write_adapter(module: PreTrainedModel, directory: Path, base: Path) -> None:
    """Write a LoRA in peft's layout, and merge it into `module` by the definition."""
    rank, alpha = 4, 8
    targets = ("q_proj", "v_proj", "down_proj")
    random = torch.Generator().manual_seed(1)
    weights = {}
    for name, layer in module.named_modules():
        if name.rpartition(".")[2] not in targets:
            continue
        out, width = layer.weight.shape
        down = torch.randn(rank, width, generator=random) * 0.2
        up = torch.randn(out, rank, generator=random) * 0.2
        weights[f"base_model.model.{name}.lora_A.weight"] = down
        weights[f"base_model.model.{name}.lora_B.weight"] = up
        layer.weight += alpha / rank * up @ down
    save_file(weights, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(targets),
        "inference_mode": True,
    }
    (directory / "adapter_config.json").write_text(json.dumps(settings))


def write_tokenizer(directory: Path, settings: dict[str, Any] = TOKENIZER_CONFIG) -> None:
    """The demo model's tokenizer, with the given settings."""
    tokenizer = files("actvec.server.model.demo").joinpath("tokenizer.json").read_bytes()
    (directory / "tokenizer.json").write_bytes(tokenizer)
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def edit_config(directory: Path, **settings: Any) -> None:
    """Set values of a saved `config.json`."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
