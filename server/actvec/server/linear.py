"""Linear layers of a CPU, whose weights are laid out once as oneDNN multiplies them fastest.

Left to itself, torch multiplies float32 matrices with MKL, which lays out the weights anew in each
call, and adds the bias in a pass of its own.
"""

from typing import cast

import torch
from torch import nn


def pack_linears(module: nn.Module) -> None:
    """Replace the linear layers of a module on a CPU, where oneDNN is there and has kernels.

    Afterwards the module cannot be trained, moved or saved.
    """
    for name, child in list(module.named_modules()):
        if type(child) is nn.Linear and has_kernels(child.weight.dtype):
            module.set_submodule(name, PackedLinear(child))


def has_kernels(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and multiplies matrices of this type on this machine's CPU."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    # For float16 few CPUs have them, and whether their rows are independent was never looked at.
    return dtype is torch.float32 or (
        dtype is torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


class PackedLinear(nn.Module):
    """`x @ weight.T + bias`, as `linear` has them, for `x` `[..., in_features]`.

    Needs oneDNN's kernels for the type of the weights (`has_kernels`).

    The operator is the one that torch.compile puts in the place of a linear layer whose weights are
    frozen; torch has no public name for it.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product `[..., out_features]`."""
        product = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return cast("torch.Tensor", product)
