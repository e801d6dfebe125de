"""From an entry's config to a module of random weights that expose every fault.

Weights as transformers draws them are too small for a test: attention is nearly uniform, norms are
ones, biases zeros, and a wrong position or mask changes little. Here every block changes its input,
every head prefers some tokens to others, and no norm, bias, sink or slope is at its default.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

from tests.zoo.shrinking import tiny_config

_SPREAD = 0.1
# Recurrences that random numbers would make explode, and tables that the model computes.
_DELICATE = ("A_log", "a_log", "dt_bias", "recurrent_param", "time_decay", "igate", "fgate")


def build(name: str, model_type: str, config: Mapping[str, Any]) -> PreTrainedModel:
    """A tiny model in float32 with eager attention, in evaluation mode; the same for each name.

    Args:
        name: The entry's name, which determines the weights.
        model_type: transformers' name of the architecture.
        config: Settings of its config beside the small sizes.
    """
    seed = zlib.crc32(name.encode())
    torch.manual_seed(seed)
    module = _whole_model(tiny_config(model_type, **config))
    _spread(module, torch.Generator().manual_seed(seed))
    return module.eval().requires_grad_(False)


def _whole_model(config: PretrainedConfig) -> PreTrainedModel:
    """The model of a checkpoint with this config, including its encoders of images and sound."""
    composite = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if composite or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForImageTextToText.from_config(config, attn_implementation="eager")
    kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return kind._from_config(config, attn_implementation="eager")


@torch.no_grad()
def _spread(module: PreTrainedModel, random: torch.Generator) -> None:
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=random) * _SPREAD
        if parameter.dim() < 2 or any(part in name for part in _DELICATE):
            parameter.add_(noise)
        else:
            parameter.copy_(noise)
    module.tie_weights()
