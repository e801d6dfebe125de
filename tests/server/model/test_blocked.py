"""Attention by blocks: the same numbers as attention by the formula, the same bits in any step."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from actvec.server.model.packed.attention import MaskRule, Segments, packed_attention
from actvec.server.model.packed.blocked import _GAINS, Blocks
from tests.server.conftest import random_neox

TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2}

both_types = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "bfloat16"])


def states(heads: int, tokens: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(heads, tokens, 64, generator=generator).to(dtype)


def attended(blocks, query, key, value, **settings):
    out = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
    blocks.attend(query, key, value, out, **settings)
    return out.transpose(0, 1)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@both_types
@pytest.mark.parametrize("tokens", [96, 128, 129, 300, 400, 501, 768])
@pytest.mark.parametrize(
    ("key_heads", "scaling"), [(12, None), (4, 0.3), (1, None)], ids=["all", "grouped", "one"]
)
def test_blocks_agree_with_float64(dtype, tokens, key_heads, scaling):
    query = states(12, tokens, dtype)
    key, value = (states(key_heads, tokens, dtype, seed) for seed in (1, 2))
    expected = scaled_dot_product_attention(
        *(part.double()[None] for part in (query, key, value)),
        is_causal=True,
        scale=scaling,
        enable_gqa=True,
    )[0]
    difference = attended(Blocks(dtype), query, key, value, scaling=scaling).double() - expected
    assert difference.norm() <= TOLERANCE[dtype] * expected.norm()


@both_types
def test_longest_document_fits_the_buffer(dtype):
    blocks = Blocks(dtype)
    longest = max(way.lengths[-1] for way in _GAINS[dtype].ways)
    document = states(1, longest, dtype)
    assert attended(blocks, document, document, document).isfinite().all()


@both_types
@pytest.mark.parametrize("count", [1, 2])
def test_bits_do_not_depend_on_the_step(dtype, count, threads):
    threads(count)
    blocks = Blocks(dtype)
    lengths = [97, 17, 300, 3, 128, 96, 64, 501, 128, 255]
    mixes = [lengths, [5, *sorted(lengths)], lengths[::-1]]
    # As in a model's block: heads lie side by side in a token's row.
    documents = {n: [states(n, 8, dtype, seed) for seed in range(3)] for n in (5, *lengths)}

    def attend(lengths):
        """The attended values of each document of a step."""
        parts = zip(*(documents[length] for length in lengths), strict=True)
        whole = [torch.cat(part).transpose(0, 1)[None] for part in parts]
        segments = Segments(lengths, torch.device("cpu"), blocks)
        out, _ = packed_attention(torch.nn.Module(), *whole, MaskRule(None), segments=segments)
        return out[0].split(lengths)

    alone = {length: attend([length])[0] for length in documents}
    for mix in mixes:
        for length, together in zip(mix, attend(mix), strict=True):
            assert torch.equal(together, alone[length]), length


@both_types
def test_window_to_the_start_is_none(dtype):
    parts = [states(8, 200, dtype, seed)[None] for seed in range(3)]
    segments = Segments([200], torch.device("cpu"), Blocks(dtype))
    whole, wide, narrow = (
        packed_attention(torch.nn.Module(), *parts, MaskRule(window), segments=segments)[0]
        for window in (None, 200, 50)
    )
    assert torch.equal(whole, wide)
    torch.testing.assert_close(whole[:, :50], narrow[:, :50], rtol=1e-2, atol=1e-2)
    assert not torch.allclose(whole[:, 50:], narrow[:, 50:], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("features", "float32", "bfloat16"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, True, True),
        ({"avx512_f": True, "avx512_bf16": False}, True, False),
        ({"avx2": True}, False, False),
        ({}, False, False),
    ],
    ids=["both", "avx512", "avx2", "none"],
)
def test_the_processor_decides(monkeypatch, features, float32, bfloat16):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    module = random_neox(num_hidden_layers=1)
    assert (Blocks.of(module) is not None) is float32
    assert (Blocks.of(module.bfloat16()) is not None) is bfloat16
    assert Blocks.of(module.half()) is None
