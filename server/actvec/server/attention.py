"""Attention over packed documents: many documents in one row, none of which sees another.

Registered with transformers' attention registry, so that transformers' own blocks call it. The
bounds of the documents travel as the keyword `segments` of the forward call. In the place of a mask
comes the rule by which transformers would have made one.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

PACKED = "actvec_packed"


@dataclass
class Segments:
    """Where the documents of a packed step begin and end.

    Attributes:
        lengths: Tokens of each document.
        calls: How often the packed attention ran with these segments: once for each block, or the
            model used another attention and its states are worthless.
    """

    lengths: list[int]
    device: torch.device
    calls: int = field(default=0, init=False)
    cumulative: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        bounds = torch.tensor([0, *self.lengths]).cumsum(0)
        # varlen_attn takes int32 bounds; the upload happens once a step, not once a block.
        self.cumulative = bounds.to(torch.int32).to(self.device)


@dataclass(frozen=True)
class MaskRule:
    """What the mask that transformers did not make would have been.

    Attributes:
        window: How many tokens, itself included, a token sees; None for all before it.
    """

    window: int | None


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: MaskRule | None,
    *,
    segments: Segments | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    position_ids: torch.Tensor | None = None,  # noqa: ARG001 - the queries and keys have them
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document.

    Args:
        module: The attention module, as the registry passes it.
        query: `[1, heads, T, d_head]`, T the tokens of all documents.
        key: `[1, key_value_heads, T, d_head]`.
        value: `[1, key_value_heads, T, d_head]`.
        attention_mask: The rule that transformers makes its masks by.
        segments: The bounds of the documents.
        scaling: Factor of the scores; None for `d_head ** -0.5`.
        sliding_window: The window once more, as some families pass it; None where they do not.
        is_causal: Whether a token sees no later one; None for what the module says.
        position_ids: Where the tokens are; the queries and keys were turned by them.
        **others: What a model passes beside this. None of it may be set.

    Returns:
        The attended values `[1, T, heads, d_head]`, and no weights.

    Raises:
        RuntimeError: called without segments or with something that this attention would ignore.
    """
    if segments is None or not isinstance(attention_mask, MaskRule):
        raise RuntimeError("packed attention needs its segments and the rule of a causal mask")
    if not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        raise RuntimeError("packed attention is causal, and the model's is not")
    window = attention_mask.window
    if sliding_window not in (None, window):
        raise RuntimeError(
            f"packed attention was given a window of {sliding_window} and a mask of {window}"
        )
    if unknown := sorted(name for name, value in others.items() if _is_set(value)):
        raise RuntimeError(f"packed attention does not know {', '.join(unknown)}")
    segments.calls += 1
    attend = _attend_varlen if query.device.type == "cuda" else _attend_each
    return attend(query, key, value, segments, scaling=scaling, window=window), None


def _is_set(value: Any) -> bool:
    """Whether an argument asks for anything: dropout of 0.0, no cache and no sinks do not."""
    return value is not None and (isinstance(value, torch.Tensor) or bool(value))


def _attend_each(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    *,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """One fused attention a document: on a CPU the loop costs less than any padding."""
    _, heads, tokens, _ = query.shape
    out = query.new_empty(1, tokens, heads, value.shape[-1])
    start = 0
    for length in segments.lengths:
        one = slice(start, start + length)
        start += length
        # A window that no document outgrows is plain causal attention.
        mask = _band(length, window, query.device) if window and length > window else None
        attended = scaled_dot_product_attention(
            query[:, :, one],
            key[:, :, one],
            value[:, :, one],
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=key.shape[1] != heads,
        )
        out[:, one] = attended.transpose(1, 2)
    return out


def _band(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Mask `[length, length]`: True where a token sees another through a sliding window."""
    position = torch.arange(length, device=device)
    back = position[:, None] - position[None, :]
    return (back >= 0) & (back < window)


def _attend_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    *,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """One kernel for all documents, on CUDA and in 16 bits; else one a document."""
    if query.dtype not in {torch.bfloat16, torch.float16}:
        return _attend_each(query, key, value, segments, scaling=scaling, window=window)
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - needs a CUDA build

    longest = max(segments.lengths)
    attended = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        segments.cumulative,
        segments.cumulative,
        longest,
        longest,
        scale=scaling,
        # (left, right): all before and itself, nothing after, is how this release spells causal.
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=key.shape[1] != query.shape[1],
        # One split: the order of the sums does not depend on what else is in the step.
        num_splits=1,
    )
    return attended.unsqueeze(0)  # type: ignore[union-attr]


def register_packed_attention() -> None:
    """Make `attn_implementation="actvec_packed"` known to transformers, with rules for masks."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _mask_rule)


def _mask_rule(*_: Any, local_size: int | None = None, **__: Any) -> MaskRule:
    """What transformers calls for a mask: the rule, of which the window is all that is needed.

    Whether the mask is causal at all, and its local part a window and not a chunk, is not visible
    here; the self-check at start compares with the model's own attention.
    """
    return MaskRule(local_size)
