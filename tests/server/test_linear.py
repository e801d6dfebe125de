"""Linear layers of the CPU: the same numbers, faster, each row whatever stands beside it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from actvec.server.linear import PackedLinear, pack_linears


def random_linear(dtype=torch.float32, *, bias=True):
    torch.manual_seed(0)
    return nn.Linear(96, 160, bias=bias, dtype=dtype).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)])
def test_it_is_the_linear_layer_that_it_was_made_of(dtype, error, bias):
    linear = random_linear(dtype, bias=bias)
    x = torch.randn(3, 50, 96, dtype=dtype)
    expected = nn.functional.linear(
        x.double(), linear.weight.double(), linear.bias.double() if bias else None
    )
    product = PackedLinear(linear)(x)
    assert product.dtype is dtype
    assert torch.linalg.norm(product.double() - expected) <= error * torch.linalg.norm(expected)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(min_value=2, max_value=700), dtype=st.sampled_from(["float32", "bfloat16"]))
def test_a_row_is_bit_for_bit_the_same_among_any_others(rows, dtype):
    packed = PackedLinear(random_linear(getattr(torch, dtype)))
    x = torch.randn(700, 96, dtype=getattr(torch, dtype))
    assert torch.equal(packed(x[:rows]), packed(x)[:rows])


def test_all_linear_layers_of_a_module_are_replaced_and_nothing_else():
    module = nn.Sequential(random_linear(), nn.GELU(), nn.Sequential(nn.LayerNorm(160)))
    x = torch.randn(20, 96)
    expected = module(x)
    pack_linears(module)
    assert [type(child) for child in module] == [PackedLinear, nn.GELU, nn.Sequential]
    torch.testing.assert_close(module(x), expected)


def test_what_onednn_may_have_no_kernels_for_stays_as_it_is():
    module = nn.Sequential(random_linear(torch.float16))
    pack_linears(module)
    assert type(module[0]) is nn.Linear
