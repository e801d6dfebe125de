"""Linear layers on the CPU: the same numbers, faster, and each row independent of the others."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from actvec.server.model.packed.linear import PackedLinear, has_kernels, pack_linears

ERRORS = {torch.float32: 1e-6, torch.bfloat16: 5e-3}
PACKED = [dtype for dtype in ERRORS if has_kernels(dtype)]
NOT_PACKED = [torch.float16, *(dtype for dtype in ERRORS if not has_kernels(dtype))]


def random_linear(dtype=torch.float32, *, bias=True):
    torch.manual_seed(0)
    return nn.Linear(96, 160, bias=bias, dtype=dtype).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", PACKED)
def test_packed_layer_equals_its_original(dtype, bias):
    linear = random_linear(dtype, bias=bias)
    x = torch.randn(3, 50, 96, dtype=dtype)
    expected = nn.functional.linear(
        x.double(), linear.weight.double(), linear.bias.double() if bias else None
    )
    product = PackedLinear(linear)(x)
    assert product.dtype is dtype
    error = torch.linalg.norm(product.double() - expected)
    assert error <= ERRORS[dtype] * torch.linalg.norm(expected)


@pytest.mark.parametrize("dtype", PACKED)
def test_packed_conv1d_equals_its_original(dtype):
    original = Conv1D(160, 96).to(dtype).requires_grad_(False)
    original.bias.uniform_()
    x = torch.randn(3, 50, 96, dtype=dtype)
    expected = x.double() @ original.weight.double() + original.bias.double()
    error = torch.linalg.norm(PackedLinear(original)(x).double() - expected)
    assert error <= ERRORS[dtype] * torch.linalg.norm(expected)


@settings(max_examples=30)
@given(rows=st.integers(min_value=2, max_value=700), dtype=st.sampled_from(PACKED))
def test_row_is_bitwise_independent_of_others(rows, dtype):
    packed = PackedLinear(random_linear(dtype))
    x = torch.randn(700, 96, dtype=dtype)
    assert torch.equal(packed(x[:rows]), packed(x)[:rows])


def test_only_linear_layers_are_replaced():
    class Doubled(nn.Linear):
        """As a quantized layer, it computes something else than its class says."""

        def forward(self, x):
            return super().forward(2 * x)

    last = nn.Sequential(nn.LayerNorm(160), Conv1D(8, 160).requires_grad_(False), Doubled(8, 8))
    module = nn.Sequential(random_linear(), nn.GELU(), last)
    x = torch.randn(20, 96)
    expected = module(x)
    pack_linears(module)
    assert [type(child) for child in module] == [PackedLinear, nn.GELU, nn.Sequential]
    assert [type(child) for child in last] == [nn.LayerNorm, PackedLinear, Doubled]
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("dtype", NOT_PACKED)
def test_unsupported_dtypes_stay_unchanged(dtype):
    module = nn.Sequential(random_linear(dtype))
    pack_linears(module)
    assert type(module[0]) is nn.Linear
