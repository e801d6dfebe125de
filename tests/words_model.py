"""A small model of random weights with a tokenizer of seven words, and a choice of BOS."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

WORDS = ["[UNK]", "<s>", "tides", "rise", "and", "fall", "text"]

# Size of the embedding; with `beyond`, `<pad>` has its last id and `BEYOND` the first outside.
SIZE = 8
BEYOND = "<tool>"

TIDES = "tides rise and fall"
TIDES_IDS = [2, 3, 4, 5]

# A part of the tokenizer that prepends `<s>` itself.
ADDS_BOS = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])

# BOS in a tokenizer_config.json; Qwen's declares that there is none.
NAMES_BOS: Mapping[str, Any] = MappingProxyType({"bos_token": "<s>"})
HAS_NO_BOS: Mapping[str, Any] = MappingProxyType({"bos_token": None})


def write_words_model(
    directory: Path,
    tokenizer_config: Mapping[str, Any],
    *,
    bos: int | None = None,
    processor: processors.PostProcessor | None = None,
    beyond: bool = False,
    **config: int,
) -> Path:
    """Write a model directory.

    Args:
        directory: The directory; created if it is missing, overwritten if it exists.
        tokenizer_config: Further settings of tokenizer_config.json.
        bos: `bos_token_id` in config.json.
        processor: The tokenizer's last part.
        beyond: Whether the tokenizer has tokens that the model lacks.
        config: Further settings of the model's configuration.
    """
    torch.manual_seed(0)
    sizes = {
        "vocab_size": SIZE,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
    module = GPTNeoXForCausalLM(
        GPTNeoXConfig(**sizes | config, bos_token_id=bos, eos_token_id=None)
    )
    module.save_pretrained(directory)
    ids = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<s>"])
    if beyond:
        tokenizer.add_special_tokens(["<pad>", BEYOND])
    if processor is not None:
        tokenizer.post_processor = processor
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **tokenizer_config})
    )
    return directory
