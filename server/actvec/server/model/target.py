"""Hooks, layers, and targets: where to capture states."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

RESID_PRE = "resid_pre"
RESID_POST = "resid_post"
ATTN_OUT = "attn_out"
MLP_OUT = "mlp_out"

HOOKS = (RESID_POST, RESID_PRE, ATTN_OUT, MLP_OUT)
"""The hooks, by TransformerLens' names."""

# The order of the hooks in a block.
_ORDER = {RESID_PRE: 0, ATTN_OUT: 1, MLP_OUT: 1, RESID_POST: 2}


class Point(NamedTuple):
    """A point where a state is captured.

    Attributes:
        layer: The block's number.
        hook: The hook in it.
    """

    layer: int
    hook: str

    @property
    def place(self) -> tuple[int, int]:
        """The sort key of points: their order in a forward pass."""
        return self.layer, _ORDER.get(self.hook, 2)


Take = Callable[[Point, torch.Tensor], None]
"""Receives the states `[rows, D]` at a point as soon as they exist."""


@dataclass(frozen=True)
class Target:
    """The layers and hook whose states a document's pools cover.

    Attributes:
        layers: Block numbers, ascending, each once.
        hook: The hook in each of them.
        separate: Whether to pool each layer separately, instead of their mean.
    """

    layers: tuple[int, ...]
    hook: str = RESID_POST
    separate: bool = False

    @property
    def points(self) -> list[Point]:
        """The points of its states, in the order of its layers."""
        return [Point(layer, self.hook) for layer in self.layers]

    @property
    def rows(self) -> int:
        """L: the number of layers in its vectors, 1 for a mean."""
        return len(self.layers) if self.separate else 1
