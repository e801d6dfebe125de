"""TransformerLens around a transformers model: the thin bridge and the default one.

The thin bridge runs transformers' own blocks, so that the packed attention applies, and keeps
TransformerLens' hook names for the residual stream, so that hook functions written for
TransformerLens work. The default bridge rebuilds attention and MLP from its own components, with
every hook point, one document at a time: the referee.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf
from transformers import PreTrainedModel

from actvec.server.errors import StartupError

_RESIDUAL_HOOKS = {"hook_resid_pre", "hook_resid_post"}

Hook = Callable[[torch.Tensor, Any], torch.Tensor | None]
"""A TransformerLens hook function: activation and HookPoint in, None or a replacement out."""


def end_paths(architecture: str, config: Any) -> tuple[str, str]:
    """Where the final norm and the unembedding are among a transformers model's modules.

    Raises:
        StartupError: TransformerLens does not know the architecture.
    """
    bridge_config = build_bridge_config_from_hf(config, architecture, "", torch.float32)
    try:
        adapter = ArchitectureAdapterFactory.select_architecture_adapter(bridge_config)
    except ValueError as error:
        raise StartupError(f"TransformerLens does not know {architecture}: {error}") from error
    components = adapter.component_mapping
    return components["ln_final"].name, components["unembed"].name


def thin_bridge(module: PreTrainedModel) -> Any:
    """A TransformerBridge of the embedding and the whole blocks of `module`, nothing finer."""
    return build_bridge_from_module(
        module,
        type(module).__name__,
        hf_config=module.config,
        tokenizer=None,
        post_adapter_hook=_keep_whole_blocks,
    )


def default_bridge(module: PreTrainedModel) -> Any:
    """TransformerLens' default bridge of `module`, with all of its hook points."""
    return build_bridge_from_module(
        module, type(module).__name__, hf_config=module.config, tokenizer=None
    )


def _keep_whole_blocks(adapter: Any) -> None:
    components = adapter.component_mapping
    for name in ("ln_final", "unembed"):
        del components[name]
    blocks = components["blocks"]
    blocks.submodules.clear()
    blocks.hook_aliases = {
        alias: target for alias, target in blocks.hook_aliases.items() if alias in _RESIDUAL_HOOKS
    }
