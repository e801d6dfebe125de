"""The demo model: a small GPT-NeoX with fixed weights, in transformers' directory layout.

It is built, not downloaded, and then loaded like any other model. The weights come from a generator
whose stream numpy has frozen, so they are the same bytes everywhere.
"""

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

VOCABULARY = 2048
CONTEXT = 4096
WIDTH = 128
BLOCKS = 8
SEED = 20260101
# As in Pythia, a few dimensions of the residual stream are far larger than the others, for all
# texts. The first block writes them.
OUTLIERS = {17: 30.0, 100: -45.0, 111: 20.0}

CONFIG: dict[str, Any] = {
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": CONTEXT,
    "num_attention_heads": 4,
    "num_hidden_layers": BLOCKS,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "use_parallel_residual": True,
    "vocab_size": VOCABULARY,
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<|endoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "model_max_length": CONTEXT,
}


def write_demo_model(directory: Path) -> None:
    """Write the demo model's config, tokenizer and weights to an existing directory."""
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=2))
    (directory / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2))
    tokenizer = files(__package__).joinpath("tokenizer.json").read_bytes()
    (directory / "tokenizer.json").write_bytes(tokenizer)
    save_file(dict(_weights()), directory / "model.safetensors", metadata={"format": "pt"})


def _weights() -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield names and values of all weights, drawn in the order of the blocks."""
    random = np.random.RandomState(SEED)

    def uniform(*shape: int, std: float) -> NDArray[np.float32]:
        # Uniform, not normal: exact arithmetic gives the same bytes on every machine.
        values = (random.random_sample(shape) - 0.5) * (std * 12**0.5)
        return values.astype(np.float32)

    def linear(name: str, fan_in: int, fan_out: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
        yield f"{name}.weight", uniform(fan_out, fan_in, std=fan_in**-0.5)
        yield f"{name}.bias", uniform(fan_out, std=0.02)

    def layer_norm(name: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
        yield f"{name}.weight", np.ones(WIDTH, np.float32)
        yield f"{name}.bias", np.zeros(WIDTH, np.float32)

    yield "gpt_neox.embed_in.weight", uniform(VOCABULARY, WIDTH, std=1.0)
    for block in range(BLOCKS):
        prefix = f"gpt_neox.layers.{block}"
        yield from layer_norm(f"{prefix}.input_layernorm")
        yield from layer_norm(f"{prefix}.post_attention_layernorm")
        yield from linear(f"{prefix}.attention.query_key_value", WIDTH, 3 * WIDTH)
        yield from linear(f"{prefix}.attention.dense", WIDTH, WIDTH)
        yield from linear(f"{prefix}.mlp.dense_h_to_4h", WIDTH, 4 * WIDTH)
        for name, values in linear(f"{prefix}.mlp.dense_4h_to_h", 4 * WIDTH, WIDTH):
            if block == 0 and name.endswith("bias"):
                values[list(OUTLIERS)] = list(OUTLIERS.values())
            yield name, values
    yield from layer_norm("gpt_neox.final_layer_norm")
    yield "embed_out.weight", uniform(VOCABULARY, WIDTH, std=WIDTH**-0.5)
