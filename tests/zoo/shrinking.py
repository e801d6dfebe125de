"""Tiny configs: any architecture of transformers with the widths of a toy.

A config class names its sizes in its own words (`n_embd`, `d_model`, `hidden_size`). Each name that
a default config of the class has is set to a small value; nested configs are shrunk alike. The
entries of the zoo hold further settings of a family.
"""

from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

from actvec.server.model.demo import VOCABULARY

BLOCKS = 5
CONTEXT = 128
WINDOW = 16

# By meaning, then by name. A head is 16 wide, and queries share keys in pairs.
_SMALL: Mapping[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embedding_size", "word_embed_dim"), 64),
    **dict.fromkeys(("word_embed_proj_dim", "lru_width"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), BLOCKS),
    **dict.fromkeys(("decoder_layers", "encoder_layers"), BLOCKS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "multi_query_group_num"), 2),
    **dict.fromkeys(("head_dim", "kv_channels", "attention_head_dim", "global_head_dim"), 16),
    **dict.fromkeys(("swa_head_dim", "v_head_dim", "swa_v_head_dim", "qk_nope_head_dim"), 16),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "d_ff", "ffn_hidden_size"), 96),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "intermediate_size_mlp"), 96),
    **dict.fromkeys(("shared_intermediate_size", "moe_shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("expert_ffn_hidden_size", "dense_intermediate_size"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"), CONTEXT),
    **dict.fromkeys(("max_sequence_length", "max_target_positions", "model_max_length"), CONTEXT),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "window_size"), WINDOW),
    **dict.fromkeys(("attention_window_size", "attention_chunk_size", "local_attention"), WINDOW),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_num_experts", "num_moe_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_top_k", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("num_experts_per_token",), 2),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "num_expert_group"), 1),
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 24,
    "rotary_dim": 8,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "index_topk": 8,
    "num_nextn_predict_layers": 0,
    "state_size": 8,
    "mamba_d_state": 8,
    "mamba_d_ssm": 64,
    "mamba_n_heads": 8,
    "mamba_num_heads": 8,
    "mamba_d_head": 16,
    "mamba_head_dim": 16,
    "mamba_chunk_size": 16,
    "mamba_dt_rank": 4,
    "n_mamba_heads": 2,
    "time_step_rank": 4,
    "chunk_size": 16,
    "linear_num_heads": 4,
    "linear_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "hidden_size_per_layer_input": 8,
    "initializer_range": 0.1,
    "image_size": 16,
    "patch_size": 8,
}
_TOKENS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
# In multi-head latent attention no head shares its keys.
_LATENT = {"num_key_value_heads": 4}


def tiny_config(model_type: str, **overrides: Any) -> PretrainedConfig:
    """A small config of a model type.

    Args:
        model_type: transformers' name, for example `qwen3_moe`.
        **overrides: Further or other settings of the config; a dict for a nested config is merged
            into the shrunk one.

    Raises:
        ValueError: transformers does not accept these settings.
    """
    return _shrunk(CONFIG_MAPPING[model_type], overrides)


def _shrunk(kind: type[PretrainedConfig], overrides: Mapping[str, Any]) -> PretrainedConfig:
    known = kind().to_dict()
    settings: dict[str, Any] = {
        name: value for name, value in {**_SMALL, **_TOKENS}.items() if name in known
    }
    if "kv_lora_rank" in known:
        settings |= _LATENT
    for name, nested in kind.sub_configs.items():
        inner = overrides.get(name, {})
        if isinstance(known.get(name), dict) and nested.__name__ != "AutoConfig":
            settings[name] = _shrunk(nested, inner).to_dict()
        elif isinstance(known.get(name), dict):
            settings[name] = _shrunk(CONFIG_MAPPING[known[name]["model_type"]], inner).to_dict()
    plain = {name: value for name, value in overrides.items() if name not in kind.sub_configs}
    return kind(**settings | plain)
