"""Linear layers of the CPU: the same numbers, faster, each row whatever stands beside it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from actvec.server.linear import PackedLinear, has_kernels, pack_linears

ERRORS = {torch.float32: 1e-6, torch.bfloat16: 5e-3}
PACKED = [dtype for dtype in ERRORS if has_kernels(dtype)]
NOT_PACKED = [torch.float16, *(dtype for dtype in ERRORS if not has_kernels(dtype))]


def random_linear(dtype=torch.float32, *, bias=True):
    torch.manual_seed(0)
    return nn.Linear(96, 160, bias=bias, dtype=dtype).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", PACKED)
def test_it_is_the_linear_layer_that_it_was_made_of(dtype, bias):
    linear = random_linear(dtype, bias=bias)
    x = torch.randn(3, 50, 96, dtype=dtype)
    expected = nn.functional.linear(
        x.double(), linear.weight.double(), linear.bias.double() if bias else None
    )
    product = PackedLinear(linear)(x)
    assert product.dtype is dtype
    error = torch.linalg.norm(product.double() - expected)
    assert error <= ERRORS[dtype] * torch.linalg.norm(expected)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(min_value=2, max_value=700), dtype=st.sampled_from(PACKED))
def test_a_row_is_bit_for_bit_the_same_among_any_others(rows, dtype):
    packed = PackedLinear(random_linear(dtype))
    x = torch.randn(700, 96, dtype=dtype)
    assert torch.equal(packed(x[:rows]), packed(x)[:rows])


def test_all_linear_layers_of_a_module_are_replaced_and_nothing_else():
    module = nn.Sequential(random_linear(), nn.GELU(), nn.Sequential(nn.LayerNorm(160)))
    x = torch.randn(20, 96)
    expected = module(x)
    pack_linears(module)
    assert [type(child) for child in module] == [PackedLinear, nn.GELU, nn.Sequential]
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("dtype", NOT_PACKED)
def test_what_onednn_has_no_kernels_for_here_stays_as_it_is(dtype):
    module = nn.Sequential(random_linear(dtype))
    pack_linears(module)
    assert type(module[0]) is nn.Linear
