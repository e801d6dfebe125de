"""What GPUs cost on Modal and can compute at most, to plan with; every figure can be overridden."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

PRICES_FROM = "Modal's list prices as reported on 2026-05-07; look at modal.com/pricing"


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        price_per_hour: Dollars, on Modal: that of a second times 3600; None where not known here.
        peak: FLOP/s of dense matrix products in 16 bits that its maker names.
    """

    price_per_hour: float | None
    peak: float


# Under the names that Modal has for them. Peaks: NVIDIA's data sheets, without sparsity.
CARDS: Mapping[str, Card] = MappingProxyType(
    {
        "T4": Card(0.5904, 65e12),
        "L4": Card(0.7992, 121e12),
        "L40S": Card(1.9512, 362e12),
        "A100-40GB": Card(None, 312e12),
        "A100-80GB": Card(2.4984, 312e12),
        "H100": Card(3.9492, 989e12),
        "H200": Card(None, 989e12),
    }
)


@dataclass(frozen=True)
class Shape:
    """What of a model counts for its FLOPs.

    Attributes:
        d_model: D, the residual width.
        blocks: Blocks that run: up to the last target layer of the default.
    """

    d_model: int
    blocks: int

    def flops(self, tokens: int, squares: int) -> float:
        """FLOPs of documents of so many tokens together, whose squared lengths add up to `squares`.

        A block has 12 D^2 weights, each a product and a sum for every token; causal attention is
        2 D T^2 for a document of T tokens. Norms and the like are left out.
        """
        return self.blocks * (24 * self.d_model**2 * tokens + 2 * self.d_model * squares)


def _pythia(d_model: int, n_layers: int) -> Shape:
    # The default target layers end at floor(0.75 n_layers), counted from 0.
    return Shape(d_model, 3 * n_layers // 4 + 1)


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "pythia-70m": _pythia(512, 6),
        "pythia-160m": _pythia(768, 12),
        "pythia-410m": _pythia(1024, 24),
        "pythia-1b": _pythia(2048, 16),
        "pythia-1.4b": _pythia(2048, 24),
        "pythia-2.8b": _pythia(2560, 32),
        "pythia-6.9b": _pythia(4096, 32),
        "pythia-12b": _pythia(5120, 36),
    }
)


def shape_of(model: str) -> Shape | None:
    """The shape of a model on the hub; None where not known here."""
    return SHAPES.get(model.rpartition("/")[2].lower().removesuffix("-deduped"))
