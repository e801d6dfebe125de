"""Attention over packed documents: many documents in one row, none of which sees another.

It is registered with transformers' attention registry, so that transformers' own blocks call it.
The bounds of the documents travel as the keyword `segments` of the forward call. In place of a mask
comes the rule by which transformers would have made it.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from actvec.server.model.packed.blocked import Blocks

PACKED = "actvec_packed"

# Scores, or weights, held at a time by attention without a fused kernel.
_SCORES = 1 << 24


@dataclass
class Segments:
    """The bounds of the documents of a packed step.

    Attributes:
        lengths: Tokens of each document.
        blocks: Attends within documents of the lengths for which it is faster; None to use torch's
            own attention always.
        calls: How often the packed attention ran with these segments: once per block, or else the
            model used another attention and its states are worthless.
    """

    lengths: list[int]
    device: torch.device
    blocks: Blocks | None = None
    calls: int = field(default=0, init=False)
    cumulative: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        bounds = torch.tensor([0, *self.lengths]).cumsum(0)
        # varlen_attn takes int32 bounds; this uploads them once per step, not once per block.
        self.cumulative = bounds.to(torch.int32).to(self.device)


@dataclass(frozen=True)
class MaskRule:
    """The rule of the mask that transformers did not make.

    Attributes:
        window: Width of a token's view, itself included; None for all before it.
    """

    window: int | None


@dataclass(frozen=True)
class Scores:
    """Turns scores that no fused kernel computes into weights of values.

    Attributes:
        softcap: Bound that scores approach; None for none.
        sinks: `[heads]`, scores that absorb attention without a value; None without.
        scaling: Factor of the scores; None for `d_head ** -0.5`.
        window: Width of a token's view, itself included; None for all before it.
    """

    softcap: float | None
    sinks: torch.Tensor | None
    scaling: float | None
    window: int | None

    def weights(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """The weights `[heads, Q, K]` of the last Q of a document's K tokens.

        Args:
            query: `[heads, Q, d_head]`.
            key: `[heads, K, d_head]`.
        """
        heads, rows, width = query.shape
        scores = query @ key.mT * (width**-0.5 if self.scaling is None else self.scaling)
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        tokens = scores.shape[-1]
        seen = _band(range(tokens - rows, tokens), self.window or tokens, query.device)
        scores.masked_fill_(~seen, float("-inf"))
        if self.sinks is not None:
            sinks = self.sinks.to(scores).view(heads, 1, 1).expand(-1, rows, -1)
            scores = torch.cat([scores, sinks], dim=-1)
        return scores.softmax(-1, dtype=torch.float32)[..., :tokens].to(query)


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
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,  # noqa: ARG001 - the queries and keys have them
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally within each document.

    Args:
        module: The attention module, as the registry passes it.
        query: `[1, heads, T, d_head]`, T the tokens of all documents.
        key: `[1, key_value_heads, T, d_head]`.
        value: `[1, key_value_heads, T, d_head]`.
        attention_mask: The rule of transformers' mask.
        segments: The bounds of the documents.
        scaling: Factor of the scores; None for `d_head ** -0.5`.
        sliding_window: The window again, as some families pass it; None from others.
        is_causal: Whether a token sees no later one; None for the module's own setting.
        softcap: Bound that scores approach, by a hyperbolic tangent (Gemma 2); None for none.
        s_aux: Scores `[heads]` of sinks, which absorb attention without a value (GPT-OSS); None
            without.
        position_ids: The tokens' positions, already applied to the queries and keys.
        **others: Further arguments of the model, none of which may be set.

    Returns:
        The attended values `[1, T, heads, d_head]`, and no weights.

    Raises:
        RuntimeError: `segments` is missing, or an argument is set that this attention would ignore.
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
    if softcap is not None or s_aux is not None:
        scores = Scores(softcap, s_aux, scaling, window)
        return _attend_scored(query, key, value, segments, scores), None
    attend = _attend_varlen if query.device.type == "cuda" else _attend_each
    return attend(query, key, value, segments, scaling=scaling, window=window), None


def _is_set(value: Any) -> bool:
    """Whether an argument requests anything: dropout of 0.0, no cache and no sinks do not."""
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
    """Call torch's attention once per document: on a CPU this loop costs less than any padding."""
    _, heads, tokens, d_head = query.shape
    out = query.new_empty(1, tokens, heads, value.shape[-1])
    blocks = segments.blocks
    start = 0
    for length in segments.lengths:
        one = slice(start, start + length)
        start += length
        # If no document exceeds the window, this is plain causal attention.
        mask = _band(range(length), window, query.device) if window and length > window else None
        if mask is None and blocks is not None and blocks.faster(length, d_head):
            document = (query[0, :, one], key[0, :, one], value[0, :, one])
            blocks.attend(*document, out[0, one], scaling=scaling)
            continue
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


def _band(rows: range, window: int, device: torch.device) -> torch.Tensor:
    """Mask `[rows, rows.stop]`: True where a token sees another through a sliding window."""
    position = torch.arange(rows.stop, device=device)
    back = position[rows.start :, None] - position[None, :]
    return (back >= 0) & (back < window)


def _attend_scored(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, scores: Scores
) -> torch.Tensor:
    """Compute one product of scores and one of values per document, or per part of a long one."""
    _, heads, tokens, _ = query.shape
    out = query.new_empty(1, tokens, heads, value.shape[-1])
    shared = heads // key.shape[1]
    key, value = (states[0].repeat_interleave(shared, dim=0) for states in (key, value))
    start = 0
    for length in segments.lengths:
        # Only the document decides, so its states do not depend on the step.
        rows = max(1, _SCORES // (heads * length))
        for first in range(start, start + length, rows):
            last = min(first + rows, start + length)
            weights = scores.weights(query[0, :, first:last], key[:, start:last])
            out[0, first:last] = (weights @ value[:, start:last]).transpose(0, 1)
        start += length
    return out


def _attend_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    *,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Call one kernel for all documents, on CUDA in 16 bits; otherwise one per document."""
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
        # (left, right): all before and itself, nothing after, is this release's form of causal.
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=key.shape[1] != query.shape[1],
        # One split: the order of the sums does not depend on the rest of the step.
        num_splits=1,
    )
    return attended.unsqueeze(0)  # type: ignore[union-attr]


def register_packed_attention() -> None:
    """Register `attn_implementation="actvec_packed"` with transformers, and its rule for masks."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _mask_rule)


def _mask_rule(*_: Any, local_size: int | None = None, **__: Any) -> MaskRule:
    """Return the rule in place of a mask; only the window matters.

    Whether the mask is causal at all, and its local part a window and not a chunk, is invisible
    here; the self-check at start compares with the model's own attention.
    """
    return MaskRule(local_size)
