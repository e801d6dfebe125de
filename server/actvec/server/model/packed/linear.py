"""Linear layers on a CPU, with weights laid out once for oneDNN.

By default torch multiplies float32 matrices with MKL, which lays out the weights again in each
call, adds the bias in a separate pass, and uses half of the vectors' width of AMD's processors.
"""

from typing import cast

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


def pack_linears(module: nn.Module) -> None:
    """Replace the linear layers of a module on a CPU, if oneDNN has kernels for them.

    Afterwards the module cannot be trained, moved or saved.
    """
    for name, child in list(module.named_modules()):
        if type(child) in {nn.Linear, Conv1D} and has_kernels(child.weight.dtype):
            module.set_submodule(name, PackedLinear(child))


def has_kernels(dtype: torch.dtype) -> bool:
    """Whether oneDNN is present and multiplies matrices of this dtype on this CPU."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    # Few CPUs have float16 kernels, and the independence of their rows is untested.
    return dtype is torch.float32 or (
        dtype is torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def multiply(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`x @ weight.T + bias` by oneDNN's kernels, for `x` `[..., in_features]`.

    It calls the operator that torch.compile substitutes for a linear layer with frozen weights;
    torch has no public name for it.
    """
    product = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return cast("torch.Tensor", product)


class PackedLinear(nn.Module):
    """`x @ weight.T + bias`, with those of `linear`, for `x` `[..., in_features]`.

    Needs oneDNN's kernels for the weights' dtype (`has_kernels`).

    Args:
        linear: The layer; a `Conv1D`, as in GPT-2, has its weight transposed.
    """

    def __init__(self, linear: nn.Linear | Conv1D) -> None:
        super().__init__()
        weight = linear.weight.detach()
        rows = weight.T.contiguous() if isinstance(linear, Conv1D) else weight
        self._weight = torch.ops.mkldnn._reorder_linear_weight(rows)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product `[..., out_features]`."""
        return multiply(x, self._weight, self._bias)
