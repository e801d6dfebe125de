"""Causal attention of one document by blocks of query rows, on CPUs that gain from it.

torch's fused attention leaves half of a processor with AVX-512 idle. Here each block of query rows
takes two matrix products, over the keys that it sees, and a softmax between them.

The processor, the dtype and the document's length decide, never a timing: a document has the same
bits in any step.
"""

from dataclasses import dataclass
from typing import Self

import torch
from transformers import PreTrainedModel

# Scores held at a time, for as many heads as fit: about a core's cache, and little beside a step.
_SCORES = 1 << 19


@dataclass(frozen=True)
class _Gain:
    """When blocks are faster than torch's fused attention.

    Attributes:
        features: Required features of the processor, by torch's names.
        rows: Query rows of a block.
        lengths: Tokens of a document. One head's scores of the longest fit `_SCORES`.
    """

    features: frozenset[str]
    rows: int
    lengths: range


_GAINS = {
    torch.float32: _Gain(frozenset({"avx512_f"}), 64, range(128, 769)),
    torch.bfloat16: _Gain(frozenset({"avx512_f", "avx512_bf16"}), 128, range(96, 4097)),
}


class Blocks:
    """Attention by blocks, with a buffer that the scores of all blocks share. One thread uses it.

    Args:
        dtype: dtype of the states: float32 or bfloat16.

    Attributes:
        lengths: Tokens of the documents for which blocks are faster.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        gain = _GAINS[dtype]
        self.lengths = gain.lengths
        self._rows = gain.rows
        self._scores = torch.empty(_SCORES, dtype=dtype)
        self._later = torch.full((gain.rows, gain.rows), float("-inf"), dtype=dtype).triu(1)

    @classmethod
    def of(cls, module: PreTrainedModel) -> Self | None:
        """Return blocks for a model's states; None if its device gains nothing from them."""
        gain = _GAINS.get(module.dtype) if module.device.type == "cpu" else None
        has = torch.cpu.get_capabilities()
        gains = gain is not None and all(has.get(feature) for feature in gain.features)
        return cls(module.dtype) if gains else None

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
        *,
        scaling: float | None = None,
    ) -> None:
        """Attend causally within one document.

        Args:
            query: `[heads, T, d_head]`, T among `lengths`.
            key: `[key_value_heads, T, d_head]`; a group of heads shares each.
            value: `[key_value_heads, T, d_value]`.
            out: `[T, heads, d_value]`, which is filled.
            scaling: Factor of the scores; None for `d_head ** -0.5`.
        """
        heads, tokens, d_head = query.shape
        shared = heads // key.shape[0]
        scale = d_head**-0.5 if scaling is None else scaling
        at_once = max(1, _SCORES // (min(self._rows, tokens) * tokens))
        for first in range(0, heads, at_once):
            these = range(first, min(first + at_once, heads))
            self._attend_heads(
                _copied(query, these),
                _copied(key, these, shared),
                _copied(value, these, shared),
                out[:, first : these.stop].transpose(0, 1),
                scale,
            )

    def _attend_heads(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
        scale: float,
    ) -> None:
        """As `attend`, for heads whose scores fit the buffer; states are `[heads, T, width]`."""
        heads, tokens, _ = query.shape
        for start in range(0, tokens, self._rows):
            end = min(start + self._rows, tokens)
            rows = end - start
            scores = self._scores[: heads * rows * end].view(heads, rows, end)
            seen = key[:, :end].mT
            torch.baddbmm(scores, query[:, start:end], seen, beta=0, alpha=scale, out=scores)
            scores[:, :, start:] += self._later[:rows, :rows]
            torch.softmax(scores, -1, out=scores)
            out[:, start:end] = torch.bmm(scores, value[:, :end])


def _copied(states: torch.Tensor, heads: range, shared: int = 1) -> torch.Tensor:
    """Copy the states of some heads, in one layout wherever in a step the document lies."""
    if shared == 1:
        return states[heads.start : heads.stop].contiguous()
    return states[[head // shared for head in heads]].contiguous()
