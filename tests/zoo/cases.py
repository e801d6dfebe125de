"""Single features and file formats, each on an architecture that is right without it."""

from collections.abc import Mapping
from typing import Any

from tests.zoo import saving
from tests.zoo.entries import Entry
from tests.zoo.shrinking import CONTEXT, WINDOW

_SHORT = 48
"""Original context of the scaled RoPEs: a document of 40 tokens is below it, one of 70 beyond."""


def _rope(kind: str, **settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **settings}}


def _longrope(dimensions: int, **settings: Any) -> dict[str, Any]:
    pairs = dimensions // 2
    return {
        "original_max_position_embeddings": _SHORT,
        **_rope(
            "longrope",
            short_factor=[1.0 + 0.1 * pair for pair in range(pairs)],
            long_factor=[2.0 + pair for pair in range(pairs)],
            original_max_position_embeddings=_SHORT,
            factor=CONTEXT / _SHORT,
            **settings,
        ),
    }


_ROPE = (
    Entry("phi3-longrope", "phi3", "LongRoPE", _longrope(16)),
    Entry("llama-longrope", "llama", "LongRoPE", _longrope(16)),
    Entry(
        "gpt_neox-longrope",
        "gpt_neox",
        "LongRoPE on a part of each head",
        _longrope(4, partial_rotary_factor=0.25),
    ),
    Entry("llama-dynamic", "llama", "dynamic NTK, context below 512", _rope("dynamic", factor=4.0)),
    Entry("gpt_neox-dynamic", "gpt_neox", "dynamic NTK", _rope("dynamic", factor=4.0)),
    Entry(
        "llama-dynamic-short",
        "llama",
        "dynamic NTK, `--context` beyond its positions",
        {"max_position_embeddings": _SHORT, **_rope("dynamic", factor=4.0)},
        given=lambda _: {"context": CONTEXT},
    ),
    Entry("llama-linear", "llama", "linear RoPE", _rope("linear", factor=4.0)),
    Entry(
        "qwen2-yarn",
        "qwen2",
        "YaRN",
        _rope("yarn", factor=4.0, original_max_position_embeddings=32),
    ),
    Entry(
        "llama-llama3",
        "llama",
        "RoPE of Llama 3",
        _rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
)

_ATTENTION = (
    Entry(
        "llama-not-causal",
        "llama",
        "every token sees every other",
        {"is_causal": False},
        must="either",
    ),
    Entry(
        "qwen2-window",
        "qwen2",
        "windows in some blocks",
        {"use_sliding_window": True, "max_window_layers": 2},
    ),
    Entry(
        "qwen2_moe-window",
        "qwen2_moe",
        "a window that the module does not pass on",
        {"use_sliding_window": True, "max_window_layers": 0},
    ),
    Entry(
        "gemma3-bidirectional",
        "gemma3_text",
        "every token sees every other",
        {"use_bidirectional_attention": True},
        must="either",
    ),
    Entry(
        "gemma4-shared-keys",
        "gemma4_text",
        "later blocks use the keys of earlier ones",
        {
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2 + ["full_attention"],
        },
    ),
    Entry("gemma4-keys-as-values", "gemma4_text", "keys are values", {"attention_k_eq_v": True}),
    Entry(
        "gemma4-experts",
        "gemma4_text",
        "experts beside the MLP",
        {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2},
    ),
    Entry("falcon-alibi", "falcon", "ALiBi", {"alibi": True}),
    Entry(
        "falcon-new",
        "falcon",
        "grouped keys, two norms",
        {"new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    Entry("mistral-no-window", "mistral", "no window", {"sliding_window": None}),
    Entry("llama-one-key-head", "llama", "one key head", {"num_key_value_heads": 1}),
    Entry("llama-wide-heads", "llama", "heads wider than the stream", {"head_dim": 32}),
    Entry("mimo-sinks", "mimo_v2_flash", "attention sinks", {"add_swa_attention_sink_bias": True}),
)

_BLOCKS = (
    Entry("opt-projection", "opt", "narrow embeddings", {"word_embed_proj_dim": 32}),
    Entry("opt-post-norm", "opt", "norms after the sum", {"do_layer_norm_before": False}),
    Entry("gpt_neox-sequential", "gpt_neox", "", {"use_parallel_residual": False}),
    Entry("llama-biases", "llama", "biases", {"attention_bias": True, "mlp_bias": True}),
    Entry("stablelm-parallel", "stablelm", "parallel blocks", {"use_parallel_residual": True}),
    Entry(
        "gpt_neox-odd-width",
        "gpt_neox",
        "an odd width",
        {"hidden_size": 36, "num_attention_heads": 2},
    ),
    Entry(
        "bloom-post-norm",
        "bloom",
        "residuals after the norm",
        {"apply_residual_connection_post_layernorm": True},
        given=lambda _: {"context": CONTEXT},
    ),
    Entry("gpt_neox-last-block", "gpt_neox", "the last block as target", layers=(4,)),
    Entry("llama-last-block", "llama", "the last block as target", layers=(4,)),
    Entry("gemma3-last-block", "gemma3_text", "the last block as target", layers=(4,)),
    Entry("nanochat-last-block", "nanochat", "the last block as target", layers=(4,)),
    Entry("llama-first-block", "llama", "the first block as target", layers=(0,)),
)

_THREE_PARTS = {"text_config": _rope("default", mrope_section=[2, 3, 3])}
_COMPOSITE: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "gemma3": ("text and images", {}),
    "gemma4": ("text, images and sound", {}),
    "llama4": ("text and images, chunks, experts", {}),
    "llava": ("text and images", {}),
    "mistral3": ("text and images", {}),
    "qwen2_vl": (
        "text and images, positions in three parts",
        {**_THREE_PARTS, "vision_config": {"depth": 2, "embed_dim": 64, "num_heads": 4}},
    ),
    "qwen2_5_vl": ("text and images, positions in three parts", _THREE_PARTS),
    "qwen3_vl": ("text and images, positions in three parts", _THREE_PARTS),
    "qwen3_5": ("text and images, linear attention", {}),
    "qwen3_5_moe": ("text and images, linear attention, experts", {}),
}
_COMPOSITES = (
    *(Entry(kind, kind, what, config) for kind, (what, config) in _COMPOSITE.items()),
    # Without an image, a block that attends to images does not run.
    Entry("mllama", "mllama", "text and images, blocks for images alone", must="refuse"),
)

_FILES = (
    Entry("llama-sharded", "llama", "several files", save=saving.sharded),
    Entry("gpt_neox-bin", "gpt_neox", "pytorch_model.bin", save=saving.pytorch_bin),
    Entry("llama-tied", "llama", "tied embeddings", {"tie_word_embeddings": True}),
    Entry("mixtral-bfloat16", "mixtral", "weights in 16 bits", save=saving.sixteen_bits),
    # With a GPU, transformers computes in float8 instead.
    Entry("llama-fp8", "llama", "weights in float8", save=saving.eight_bits, must="either"),
    Entry("qwen2-no-bos", "qwen2", "a tokenizer without BOS", save=saving.without_bos),
    Entry(
        "llama-bos-beyond",
        "llama",
        "a BOS outside the embedding",
        save=saving.bos_beyond_the_embedding,
        must="refuse",
    ),
    Entry(
        "llama-vocabulary",
        "llama",
        "a vocabulary that the weights lack",
        save=saving.other_vocabulary,
        must="refuse",
    ),
    Entry(
        "llama-unknown-tensor",
        "llama",
        "a tensor that nothing uses",
        save=saving.unknown_tensor,
        must="either",
    ),
    Entry(
        "llama-unknown-quantization",
        "llama",
        "a quantization that nobody knows",
        save=saving.unknown_quantization,
        must="refuse",
    ),
    Entry(
        "llama-adapter-unnamed",
        "llama",
        "a LoRA beside the weights, not asked for",
        save=saving.beside_an_adapter,
        must="refuse",
    ),
    Entry(
        "llama-adapter",
        "llama",
        "a LoRA, asked for",
        save=saving.under_an_adapter,
        given=lambda directory: {"adapter": str(directory / "adapter")},
    ),
)

CASES = (*_ROPE, *_ATTENTION, *_BLOCKS, *_COMPOSITES, *_FILES)
assert WINDOW < 40 < _SHORT < 70 < CONTEXT  # the lengths of the documents that run
