"""GELUs that transformers writes out: the same numbers from torch's own, rounded once."""

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from actvec.server.model.packed.activations import fuse_activations


def fused(name):
    module = nn.Sequential(nn.Linear(1, 1), ACT2FN[name])
    fuse_activations(module)
    return module[1]


WRITTEN_OUT = ["gelu_new", "gelu_fast", "gelu_accurate"]


def error(gelu, name, dtype):
    x = torch.linspace(-6, 6, 5001, dtype=dtype)
    exact = ACT2FN[name](x.double())
    return torch.linalg.norm(gelu(x).double() - exact) / torch.linalg.norm(exact)


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_fused_gelu_has_the_same_values(name):
    assert isinstance(fused(name), nn.GELU)
    assert error(fused(name), name, torch.float32) <= 1e-7


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_fused_gelu_rounds_less_in_bfloat16(name):
    assert error(fused(name), name, torch.bfloat16) < error(ACT2FN[name], name, torch.bfloat16)


@pytest.mark.parametrize("name", ["gelu", "gelu_10", "quick_gelu", "gelu_pytorch_tanh", "silu"])
def test_other_activations_stay(name):
    assert type(fused(name)) is type(ACT2FN[name])
