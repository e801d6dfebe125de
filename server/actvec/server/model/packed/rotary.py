"""GPT-NeoX's rotary embeddings on a GPU, applied in place to the queries and keys.

transformers rotates a part of each head, a quarter in Pythia, and copies all of it to join the
rotated part with the rest. On an H200 these copies took 7% of a step of Pythia-12B. (On a CPU they
take less time than writing a part of each row in place.)
"""

from typing import Any

import torch
from torch import nn
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXAttention, rotate_half

from actvec.server.model.packed.attention import MaskRule, Segments, packed_attention


def rotate_in_place(module: nn.Module) -> None:
    """Replace the attention of a GPT-NeoX's blocks; other models stay unchanged."""
    for name, child in list(module.named_modules()):
        if type(child) is GPTNeoXAttention:
            module.set_submodule(name, InPlaceRotary(child))


class InPlaceRotary(nn.Module):
    """A block's packed attention with the same results, bit for bit.

    Args:
        attention: The replaced attention; its linear layers are shared.
    """

    def __init__(self, attention: GPTNeoXAttention) -> None:
        super().__init__()
        self.query_key_value = attention.query_key_value
        self.dense = attention.dense
        self._head_size: int = attention.head_size
        self._scaling: float = attention.scaling

    def forward(
        self,
        hidden_states: torch.Tensor,
        *,
        attention_mask: MaskRule | None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        segments: Segments,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attend over `hidden_states` `[1, T, D]`; return states of the same shape, and no weights.

        Args:
            hidden_states: The normalized residual stream.
            attention_mask: As for `packed_attention`.
            position_embeddings: Cosines and sines `[1, T, R]`, R the rotated width.
            segments: The bounds of the documents.
            **_: Further arguments of the block, unused in a packed step.
        """
        heads = self.query_key_value(hidden_states).unflatten(-1, (-1, 3 * self._head_size))
        query, key, value = heads.transpose(1, 2).chunk(3, dim=-1)
        for states in (query, key):
            _rotate(states, *position_embeddings)
        attended, weights = packed_attention(
            self, query, key, value, attention_mask, segments=segments, scaling=self._scaling
        )
        return self.dense(attended.flatten(-2)), weights


def _rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Rotate the first R of each head's dimensions; `states` is `[1, heads, T, d_head]`."""
    turned = states[..., : cos.shape[-1]]
    # In transformers' order, for the same roundings.
    turned.copy_(turned * cos[:, None] + rotate_half(turned) * sin[:, None])
