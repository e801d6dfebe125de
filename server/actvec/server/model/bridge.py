"""TransformerLens' default bridge around a transformers model, with every hook point.

It rebuilds attention and MLP from TransformerLens' own components, one document at a time: the
reference.
"""

from copy import deepcopy
from typing import Any

from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import PreTrainedModel

from actvec.server.errors import StartupError, first_line


def default_bridge(module: PreTrainedModel, blocks: int) -> Any:
    """Build TransformerLens' default bridge of a model of `blocks` blocks, with all hook points.

    Raises:
        StartupError: TransformerLens does not know the architecture.
    """
    # The bridge wraps as many blocks as the config names. A model that was cut still names all: its
    # remaining blocks may depend on that number.
    config = deepcopy(module.config)
    config.get_text_config().num_hidden_layers = blocks
    try:
        return build_bridge_from_module(
            module, type(module).__name__, hf_config=config, tokenizer=None
        )
    except ValueError as error:
        raise StartupError(
            f"TransformerLens does not know {type(module).__name__}: {first_line(error)}"
        ) from error
