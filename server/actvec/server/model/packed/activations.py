"""GELU in one operation, where transformers writes its approximation out in eight."""

from torch import nn
from transformers.activations import (
    AccurateGELUActivation,
    FastGELUActivation,
    NewGELUActivation,
)

# `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))`, written in three ways.
_WRITTEN_OUT = {AccurateGELUActivation, FastGELUActivation, NewGELUActivation}


def fuse_activations(module: nn.Module) -> None:
    """Replace such GELUs, as GPT-2 and Phi have, by torch's own.

    In 16 bits torch's is the more exact one: it rounds once.
    """
    for name, child in list(module.named_modules()):
        if type(child) in _WRITTEN_OUT:
            module.set_submodule(name, nn.GELU(approximate="tanh"))
