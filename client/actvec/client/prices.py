"""What GPUs cost on Modal, hold and compute at most, and what models ask of them, to plan with."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

# Public copies of modal.com/pricing of 2026-05-07, 2026-05-25 (the only one with every card) and
# 2026-06-27 agree where they overlap; the page itself was not at hand.
PRICES_FROM = "Modal's list price as copied on 2026-05-25; look at modal.com/pricing"


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        price_per_hour: Dollars, on Modal: that of a second times 3600.
        peak: FLOP/s of dense matrix products in 16 bits that its maker names.
        memory: Its memory in bytes.
    """

    price_per_hour: float
    peak: float
    memory: float


# Under the names that Modal has or had for them. Peaks: NVIDIA's data sheets, without sparsity.
# Whoever asks Modal for an A10 may get an A10G, which is the slower of the two.
CARDS: Mapping[str, Card] = MappingProxyType(
    {
        "T4": Card(0.5904, 65e12, 16e9),
        "L4": Card(0.7992, 121e12, 24e9),
        "A10": Card(1.1016, 70e12, 24e9),
        "A10G": Card(1.1016, 70e12, 24e9),
        "L40S": Card(1.9512, 362e12, 48e9),
        "A100-40GB": Card(2.0988, 312e12, 40e9),
        "A100-80GB": Card(2.4984, 312e12, 80e9),
        "H100": Card(3.9492, 989e12, 80e9),
        "H200": Card(4.5396, 989e12, 141e9),
        "B200": Card(6.2496, 2250e12, 180e9),
    }
)


def card_name(gpu: str) -> str:
    """The name in `CARDS` of a card, in whatever case; another card's own where it is not there."""
    return next((name for name in CARDS if name.lower() == gpu.lower()), gpu)


@dataclass(frozen=True)
class Shape:
    """What of a model counts for its FLOPs.

    Attributes:
        d_model: D, the residual width.
        blocks: Blocks that run: up to the last target layer of the default.
        context: Tokens of a document that the model takes, BOS included.
        words: Rows of the embedding.
    """

    d_model: int
    blocks: int
    context: int = 2048
    words: int = 50304

    @property
    def weights(self) -> int:
        """Bytes of the weights that are loaded, in 16 bits: the embedding and the blocks."""
        return 2 * self.d_model * (self.words + self.blocks * 12 * self.d_model)

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
