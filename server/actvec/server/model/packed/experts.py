"""Mixtures of experts on a CPU, made independent of the other tokens of a step.

How many rows an expert multiplies depends on the rest of the step, and a CPU may round products of
other numbers of rows differently. So rows of zeros pad those of each expert.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward

_FILLED = "actvec_filled"

_ROWS = 16


def filled_experts(
    module: nn.Module,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """Sum the outputs of each token's experts, `[T, D]`.

    Args:
        module: The experts, as transformers' interface passes them.
        hidden_states: `[T, D]`.
        top_k_index: `[T, K]`, the experts of each token.
        top_k_weights: `[T, K]`, their weights.
    """
    tokens, chosen = top_k_index.shape
    lacking = -top_k_index.flatten().bincount() % _ROWS
    # Each token of zeros has as many experts as the others.
    while int(lacking.sum()) % chosen:
        lacking[0] += _ROWS
    filling = torch.arange(len(lacking)).repeat_interleave(lacking).view(-1, chosen)
    added: torch.Tensor = grouped_mm_experts_forward(
        module,
        torch.cat([hidden_states, hidden_states.new_zeros(len(filling), hidden_states.shape[-1])]),
        torch.cat([top_k_index, filling]),
        torch.cat([top_k_weights, top_k_weights.new_zeros(filling.shape)]),
    )
    return added[:tokens]


def fill_experts(module: PreTrainedModel) -> None:
    """Pad the rows of a model's experts, if they use transformers' interface."""
    ALL_EXPERTS_FUNCTIONS.register(_FILLED, filled_experts)
    module.config._experts_implementation = _FILLED
