"""Packed attention against attention by its formula."""

import pytest
import torch

from actvec.server.model.packed import attention
from actvec.server.model.packed.attention import MaskRule, Segments, packed_attention

CPU = torch.device("cpu")


def written_out(query, key, value, *, scaling, window=None, softcap=None, sinks=None):
    """Causal attention of one document by the formula, in float64: `[heads, T, d_head]`."""
    groups = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    tokens = query.shape[1]
    back = torch.arange(tokens)[:, None] - torch.arange(tokens)[None, :]
    seen = (back >= 0) & (back < (window or tokens))
    scores = (query.double() @ key.double().transpose(1, 2)) * scaling
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    weights = scores.masked_fill(~seen, float("-inf")).exp()
    sums = weights.sum(-1, keepdim=True)
    if sinks is not None:
        sums += sinks.double().exp()[:, None, None]
    return weights / sums @ value.double()


@pytest.mark.parametrize("key_value_heads", [4, 2, 1])
@pytest.mark.parametrize("window", [None, 5])
def test_documents_attend_causally_to_themselves(key_value_heads, window):
    torch.manual_seed(0)
    lengths = [1, 3, 17, 5]
    query = torch.randn(1, 4, sum(lengths), 8)
    key, value = (torch.randn(1, key_value_heads, sum(lengths), 8) for _ in range(2))
    out, weights = packed_attention(
        torch.nn.Module(),
        query,
        key,
        value,
        MaskRule(window),
        segments=Segments(lengths, CPU),
        scaling=0.3,
    )
    assert weights is None
    assert out.shape == (1, sum(lengths), 4, 8)
    start = 0
    for length in lengths:
        one = slice(start, start + length)
        start += length
        expected = written_out(
            query[0, :, one], key[0, :, one], value[0, :, one], scaling=0.3, window=window
        )
        torch.testing.assert_close(out[0, one].transpose(0, 1), expected.float())


@pytest.mark.parametrize("key_value_heads", [4, 2])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("held", [1, 4 * 17 * 3, 1 << 24], ids=["row", "rows", "document"])
def test_soft_caps_and_sinks_are_scored(monkeypatch, key_value_heads, window, softcap, held):
    monkeypatch.setattr(attention, "_SCORES", held)
    torch.manual_seed(0)
    lengths = [1, 3, 17, 5]
    query = 3 * torch.randn(1, 4, sum(lengths), 8)
    key, value = (torch.randn(1, key_value_heads, sum(lengths), 8) for _ in range(2))
    sinks = torch.randn(4) if softcap is None else None
    out, _ = packed_attention(
        torch.nn.Module(),
        *(query, key, value, MaskRule(window)),
        segments=Segments(lengths, CPU),
        scaling=0.3,
        softcap=softcap,
        s_aux=sinks,
    )
    extra = {"scaling": 0.3, "window": window, "softcap": softcap, "sinks": sinks}
    start = 0
    for length in lengths:
        one = slice(start, start + length)
        start += length
        expected = written_out(query[0, :, one], key[0, :, one], value[0, :, one], **extra)
        torch.testing.assert_close(out[0, one].transpose(0, 1), expected.float())


@pytest.mark.parametrize(
    "unusable",
    [
        {"segments": None},
        {"sinks": torch.zeros(4)},
        {"attention_mask": torch.zeros(1, 1, 4, 4)},
        {"attention_mask": None},
        {"sliding_window": 3},
        {"is_causal": False},
        {"position_bias": torch.zeros(1, 4, 4, 4)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_it_would_ignore_it_refuses(unusable):
    states = torch.randn(1, 4, 4, 8)
    options = {"attention_mask": MaskRule(None), "segments": Segments([4], CPU)} | unusable
    with pytest.raises(RuntimeError, match="packed attention"):
        packed_attention(torch.nn.Module(), states, states, states, **options)


def test_attention_that_is_not_causal_is_refused():
    states = torch.randn(1, 4, 4, 8)
    module = torch.nn.Module()
    module.is_causal = False
    with pytest.raises(RuntimeError, match="packed attention is causal"):
        packed_attention(
            module, states, states, states, MaskRule(None), segments=Segments([4], CPU)
        )
