"""Experts with rows of zeros: transformers' own sums, whatever else is in the step."""

import pytest
import torch
from transformers import MixtralConfig
from transformers.integrations.moe import grouped_mm_experts_forward
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from actvec.server.model.packed.experts import filled_experts


@pytest.mark.parametrize("chosen", [1, 2, 3, 5])
@pytest.mark.parametrize("tokens", [1, 7, 16, 40])
def test_filled_experts_add_up_alike(tokens, chosen):
    torch.manual_seed(0)
    config = MixtralConfig(hidden_size=32, intermediate_size=48, num_local_experts=6)
    experts = MixtralExperts(config).requires_grad_(False)
    for parameter in experts.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.2)
    states = torch.randn(tokens, 32)
    weights, index = torch.rand(tokens, 6).topk(chosen)
    expected = grouped_mm_experts_forward(experts, states, index, weights)
    found = filled_experts(experts, states, index, weights)
    torch.testing.assert_close(found, expected)
    alone = filled_experts(experts, states[-1:], index[-1:], weights[-1:])
    assert torch.equal(alone, found[-1:])
