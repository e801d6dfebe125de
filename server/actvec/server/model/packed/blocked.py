"""Causal attention of one document by blocks of query rows, on CPUs that gain from it.

torch's fused attention leaves half of a processor with AVX-512 idle. Here each block of query rows
takes two matrix products, over the keys that it sees, and a softmax between them.

The processor, the dtype and the document's length decide, never a timing: a document has the same
bits in any step.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch.nn.functional import pad
from transformers import PreTrainedModel

from actvec.server.model.packed.linear import has_kernels, multiply

# Scores held at a time, for as many heads as fit: about a core's cache, and little beside a step.
_SCORES = 1 << 19


@dataclass(frozen=True)
class _Way:
    """How to attend within documents of some lengths.

    Attributes:
        lengths: Tokens of a document.
        rows: Query rows of a block. One head's scores of a block fit `_SCORES`.
        multiple: Rows of zeros fill a document up to a multiple of this. oneDNN creates a kernel
            for each new shape, which takes as long as some products, and keeps a thousand of them.
        by_head: The least width of heads that oneDNN multiplies one by one; None for all at once.
            In float32 torch leaves the product of many heads to MKL, which on AMD's processors uses
            half of their vectors' width.
    """

    lengths: range
    rows: int
    multiple: int = 1
    by_head: int | None = None


@dataclass(frozen=True)
class _Gain:
    """When blocks are faster than torch's fused attention.

    Attributes:
        features: Required features of the processor, by torch's names.
        ways: The first that takes a document's length and its heads' width is the fastest.
    """

    features: frozenset[str]
    ways: tuple[_Way, ...]


_GAINS = {
    torch.float32: _Gain(
        frozenset({"avx512_f"}),
        (_Way(range(400, 2049), 256, multiple=16, by_head=64), _Way(range(128, 769), 64)),
    ),
    torch.bfloat16: _Gain(
        frozenset({"avx512_f", "avx512_bf16"}), (_Way(range(64, 4097), 128, multiple=16),)
    ),
}


class Blocks:
    """Attention by blocks, with a buffer that the scores of all blocks share. One thread uses it.

    Args:
        dtype: dtype of the states: float32 or bfloat16.

    Attributes:
        starts: The least length of each way to attend.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._ways = _GAINS[dtype].ways
        self.starts = [way.lengths.start for way in self._ways]
        rows = max(way.rows for way in self._ways)
        self._scores = torch.empty(_SCORES, dtype=dtype)
        self._later = torch.full((rows, rows), float("-inf"), dtype=dtype).triu(1)

    @classmethod
    def of(cls, module: PreTrainedModel) -> Self | None:
        """Return blocks for a model's states; None if its device gains nothing from them."""
        gain = _GAINS.get(module.dtype) if module.device.type == "cpu" else None
        has = torch.cpu.get_capabilities()
        gains = (
            gain is not None
            and all(has.get(feature) for feature in gain.features)
            and has_kernels(module.dtype)
        )
        return cls(module.dtype) if gains else None

    def faster(self, tokens: int, d_head: int) -> bool:
        """Whether blocks are faster within a document of this length."""
        return self._way(tokens, d_head) is not None

    def _way(self, tokens: int, d_head: int) -> _Way | None:
        ways = (way for way in self._ways if tokens in way.lengths)
        return next((way for way in ways if d_head >= (way.by_head or 0)), None)

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
            query: `[heads, T, d_head]`; one head's scores of a block must fit `_SCORES`.
            key: `[key_value_heads, T, d_head]`; a group of heads shares each.
            value: `[key_value_heads, T, d_value]`.
            out: `[T, heads, d_value]`, which is filled.
            scaling: Factor of the scores; None for `d_head ** -0.5`.
        """
        heads, tokens, d_head = query.shape
        shared = heads // key.shape[0]
        scale = d_head**-0.5 if scaling is None else scaling
        way = self._way(tokens, d_head) or self._ways[-1]
        # Zeros behind the last token, which no other sees.
        rows = -(-tokens // way.multiple) * way.multiple
        at_once = max(1, _SCORES // (min(way.rows, rows) * rows))
        attend = self._attend_heads if way.by_head is None else self._attend_by_head
        for first in range(0, heads, at_once):
            these = range(first, min(first + at_once, heads))
            attend(
                _filled(query, these, rows),
                _filled(key, these, rows, shared),
                _filled(value, these, rows, shared),
                out[:, first : these.stop].transpose(0, 1),
                scale=scale,
                block=way.rows,
            )

    def _attend_heads(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
        *,
        scale: float,
        block: int,
    ) -> None:
        """As `attend`, for heads whose scores fit the buffer; states are `[heads, rows, width]`."""
        heads, filled, _ = query.shape
        tokens = out.shape[1]
        for start in range(0, filled, block):
            end = min(start + block, filled)
            rows = end - start
            scores = self._scores[: heads * rows * end].view(heads, rows, end)
            seen = key[:, :end].mT
            torch.baddbmm(scores, query[:, start:end], seen, beta=0, alpha=scale, out=scores)
            scores[:, :, start:] += self._later[:rows, :rows]
            torch.softmax(scores, -1, out=scores)
            out[:, start:end] = torch.bmm(scores, value[:, :end])[:, : tokens - start]

    def _attend_by_head(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
        *,
        scale: float,
        block: int,
    ) -> None:
        """As `_attend_heads`, with oneDNN's products of one head."""
        filled = query.shape[1]
        tokens = out.shape[1]
        heads = zip(query, key, value.mT, out, strict=True)
        for one_query, one_key, one_value, one_out in heads:
            for start in range(0, filled, block):
                end = min(start + block, filled)
                rows = end - start
                scores = multiply(one_query[start:end] * scale, one_key[:end])
                scores[:, start:] += self._later[:rows, :rows]
                torch.softmax(scores, -1, out=scores)
                one_out[start:end] = multiply(scores, one_value[:, :end])[: tokens - start]


def _filled(states: torch.Tensor, heads: range, rows: int, shared: int = 1) -> torch.Tensor:
    """The states of some heads, `[heads, rows, width]`, filled with zeros.

    They have one layout wherever in a step the document lies.
    """
    if shared == 1:
        own = states[heads.start : heads.stop]
    else:
        own = states[[head // shared for head in heads]]
    lacking = rows - states.shape[1]
    return pad(own, (0, 0, 0, lacking)) if lacking else own.contiguous()
