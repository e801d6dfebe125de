"""One model per architecture: decoders that transformers maps to a causal language model."""

from collections.abc import Mapping
from typing import Any

from tests.zoo.entries import Entry
from tests.zoo.shrinking import BLOCKS, CONTEXT

_Config = Mapping[str, Any]

# Nothing but small sizes.
_PLAIN = [
    "afmoe",
    "apertus",
    "arcee",
    "aria_text",
    "axk2",
    "biogpt",
    "bitnet",
    "codegen",
    "cohere",
    "cohere2",
    "cohere2_moe",
    "ctrl",
    "cwm",
    "deepseek_v2",
    "deepseek_v32",
    "diffllama",
    "doge",
    "dots1",
    "ernie4_5",
    "ernie4_5_moe",
    "exaone4",
    "exaone_moe",
    "flex_olmo",
    "flint",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma4_text",
    "gemma4_unified_text",
    "glm",
    "glm4",
    "glm4_moe",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "gpt-sw3",
    "gpt2",
    "gpt_bigcode",
    "gpt_neox",
    "gpt_neox_japanese",
    "gpt_oss",
    "gptj",
    "granite",
    "granite_swa",
    "granitemoe",
    "granitemoe_swa",
    "granitemoeshared",
    "helium",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "hy_v3",
    "hyperclovax",
    "inkling_text",
    "inkling2_text",
    "internlm3",
    "iquestcoder",
    "jais2",
    "jetmoe",
    "kolibri1",
    "laguna",
    "lfm2",
    "lfm3",
    "llama",
    "llama4_text",
    "mellum",
    "mimo_v2_flash",
    "minicpm3",
    "minimax",
    "minimax_m2",
    "minimax_m3_vl_text",
    "ministral",
    "ministral3",
    "mistral",
    "mixtral",
    "moshi",
    "nanochat",
    "nemotron",
    "nemotron_h",
    "olmo",
    "olmo2",
    "olmo3",
    "olmo_hybrid",
    "olmoe",
    "openai-gpt",
    "opt",
    "persimmon",
    "phi",
    "phi3",
    "phimoe",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_5_text",
    "qwen3_5_moe_text",
    "qwen3_moe",
    "qwen3_next",
    "seed_oss",
    "smollm3",
    "solar_open",
    "stablelm",
    "starcoder2",
    "vaultgemma",
    "xglm",
]

# Further settings of a family, so that it has its special parts.
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2}
# The attention of Zamba sees the stream beside the embeddings.
_WIDE = {"attention_hidden_size": 128, "attention_head_dim": 32}
_SPECIAL: Mapping[str, tuple[str, _Config]] = {
    "axk1": ("latent attention", {"head_dim": 8}),
    "deepseek_v3": ("latent attention, experts", {"head_dim": 8}),
    "youtu": ("latent attention", {"head_dim": 8}),
    "bailing_hybrid": ("linear and latent attention", {}),
    "kimi_linear": ("linear and latent attention", {}),
    "bamba": ("Mamba 2 and attention", {**_MAMBA, "attn_layer_indices": [1, 3]}),
    "cohere_compass_text": (
        "windows",
        {
            "rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": 1e4}
                for kind in ("full_attention", "sliding_attention")
            }
        },
    ),
    "dbrx": (
        "experts",
        {
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4},
            "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
        },
    ),
    "dots3_note_text": ("latent attention, an index, windows", {}),
    "falcon": ("parallel blocks, one key head", {}),
    "falcon_h1": ("Mamba 2 and attention in each block", {**_MAMBA, "mamba_d_ssm": 128}),
    "gpt_neo": (
        "windows, unscaled attention",
        {"attention_types": [[["global", "local"], 2], [["global"], 1]]},
    ),
    "granitemoehybrid": (
        "Mamba 2 and attention",
        {
            "layer_types": ["mamba", "attention", "mamba", "attention", "mamba"],
            "mamba_d_head": 16,
            "mamba_n_heads": 8,
        },
    ),
    "jamba": (
        "Mamba and attention, experts",
        {
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "use_mamba_kernels": False,
        },
    ),
    "lfm2_moe": (
        "convolutions, experts",
        {"layer_types": ["conv", "full_attention"] * 2 + ["conv"]},
    ),
    "modernbert-decoder": ("windows", {"local_attention": 32}),
    "zamba": (
        "Mamba and a shared attention",
        {**_WIDE, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    ),
    "zamba2": (
        "Mamba 2 and a shared attention",
        {
            **_WIDE,
            "layers_block_type": ["linear_attention", "hybrid"] * 2 + ["linear_attention"],
            "num_key_value_heads": 4,
            "n_mamba_heads": 8,
            "use_mamba_kernels": False,
        },
    ),
    "zaya": ("compressed attention, experts", {"num_experts_per_tok": 1}),
}

# No attention, or none that implies a longest document: the operator chooses the context.
_ENDLESS: Mapping[str, tuple[str, _Config]] = {
    "bloom": ("ALiBi", {}),
    "mpt": ("ALiBi", {}),
    "falcon_mamba": ("Mamba", {"use_mambapy": False}),
    "mamba": ("Mamba", {"use_mambapy": False}),
    "mamba2": ("Mamba 2", {"num_heads": 8, "head_dim": 16, "n_groups": 2}),
    "recurrent_gemma": ("gated linear recurrence and windows", {}),
    "rwkv": ("RWKV", {"context_length": CONTEXT, "attention_hidden_size": 64}),
    "xlstm": ("xLSTM", {}),
}

# The state after a block is not one vector per token, or a block does not run once.
_UNDEFINED: Mapping[str, tuple[str, _Config]] = {
    "cpmant": ("prompt tokens in front", {}),
    "deepseek_v4": ("several residual streams", {}),
    "hy_v4": ("several residual streams", {}),
    "hrm_text": ("blocks that run several times", {}),
    "gemma3n_text": (
        "several residual streams, shared keys",
        {
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2 + ["full_attention"],
            "activation_sparsity_pattern": [0.0] * BLOCKS,
            "laurel_rank": 8,
        },
    ),
}

# No decoder, or one that is half of another model.
_ENCODERS = [
    "bert",
    "camembert",
    "electra",
    "ernie",
    "roberta",
    "xlm-roberta",
    "roformer",
    "megatron-bert",
    "xlnet",
]
_HALVES = [
    "bart",
    "bigbird_pegasus",
    "blenderbot",
    "blenderbot-small",
    "git",
    "marian",
    "mbart",
    "mvp",
    "pegasus",
    "plbart",
    "trocr",
    "whisper",
]

FAMILIES = (
    *(Entry(kind, kind) for kind in _PLAIN),
    *(Entry(kind, kind, what, config) for kind, (what, config) in _SPECIAL.items()),
    *(
        Entry(kind, kind, what, config, given=lambda _: {"context": CONTEXT})
        for kind, (what, config) in _ENDLESS.items()
    ),
    *(
        Entry(kind, kind, what, config, must="refuse", given=lambda _: {"context": CONTEXT})
        for kind, (what, config) in _UNDEFINED.items()
    ),
    *(Entry(kind, kind, "an encoder", must="either") for kind in _ENCODERS),
    *(Entry(kind, kind, "half of another model", must="either") for kind in _HALVES),
)
