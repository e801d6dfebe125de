"""Prices, memory and peak rates of GPUs on Modal, and sizes of models, for planning.

`cards.json` has the numbers, under Modal's present or former names of the cards: dollars per hour
(3600 times those per second), dense FLOP/s of matrix products in 16 bits (NVIDIA's data sheets,
without sparsity), bytes of memory. A request for an A10 may get an A10G, the slower of the two. The
prices come from public copies of modal.com/pricing of 2026-05-07, 2026-05-25 (the only one with
every card) and 2026-06-27, which agree where they overlap; the page itself was not available. For
each Pythia it has the residual width and the number of blocks.
"""

import json
from dataclasses import dataclass
from importlib.resources import files

_DATA = json.loads(files(__package__).joinpath("cards.json").read_text("utf-8"))

PRICES_FROM: str = _DATA["prices"]


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        price_per_hour: Dollars per hour on Modal.
        peak: FLOP/s.
        memory: Bytes.
    """

    price_per_hour: float
    peak: float
    memory: float


@dataclass(frozen=True)
class Shape:
    """The sizes that determine a model's FLOPs.

    Attributes:
        d_model: D, the residual width.
        blocks: Number of blocks that run: up to the last default layer.
        context: The context in tokens, BOS included.
        words: Rows of the embedding.
    """

    d_model: int
    blocks: int
    context: int = 2048
    words: int = 50304

    @property
    def weights(self) -> int:
        """Bytes of the loaded weights, in 16 bits: the embedding and the blocks."""
        return 2 * self.d_model * (self.words + self.blocks * 12 * self.d_model)

    def flops(self, tokens: int, squares: int) -> float:
        """FLOPs of documents with `tokens` tokens, whose squared lengths add up to `squares`.

        A block has 12 D^2 weights, each a product and a sum per token; causal attention takes 2 D
        T^2 for a document of T tokens. Norms and other small operations are ignored.
        """
        return self.blocks * (24 * self.d_model**2 * tokens + 2 * self.d_model * squares)


CARDS = {name: Card(**card) for name, card in _DATA["cards"].items()}
# The default layers end at floor(0.75 n_layers), counted from 0.
SHAPES = {
    f"pythia-{size}": Shape(d_model, 3 * n_layers // 4 + 1)
    for size, (d_model, n_layers) in _DATA["pythia"].items()
}


def shape_of(model: str) -> Shape | None:
    """The shape of a model on the hub; None if it is unknown here."""
    return SHAPES.get(model.rpartition("/")[2].lower().removesuffix("-deduped"))
