"""TransformerLens' default bridge around a transformers model, with every hook point.

It rebuilds attention and MLP from TransformerLens' own components, one document at a time: the
reference.
"""

from typing import Any

from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import PreTrainedModel

from actvec.server.errors import StartupError, first_line


def default_bridge(module: PreTrainedModel) -> Any:
    """Build TransformerLens' default bridge of `module`, with all of its hook points.

    Raises:
        StartupError: TransformerLens does not know the architecture.
    """
    try:
        return build_bridge_from_module(
            module, type(module).__name__, hf_config=module.config, tokenizer=None
        )
    except ValueError as error:
        raise StartupError(
            f"TransformerLens does not know {type(module).__name__}: {first_line(error)}"
        ) from error
