"""Thresholds in a model's config: lengths beyond which its behavior changes."""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

# Names of widths that documents may exceed: windows, chunks, the tokens that sparse attention
# picks.
_WIDTH = re.compile(r"(^|_)(sliding_window|window_size|attention_window|chunk_size|index_topk)$")


def thresholds(config: Any) -> list[int]:
    """Lengths, ascending, beyond which the model's behavior within a document changes.

    Args:
        config: The text decoder's config.

    Examples:
        >>> thresholds(MistralConfig(sliding_window=4096))
        [4096]
    """
    return sorted({*_widths(config.to_dict()), *row_thresholds(config)})


def row_thresholds(config: Any) -> list[int]:
    """Lengths, ascending, at which rotary embeddings change for the whole row of a forward pass.

    transformers chooses the frequencies of LongRoPE by the largest position in the row. Documents
    on different sides of such a length cannot share one.
    """
    return sorted(
        {
            rope.get("original_max_position_embeddings")
            or getattr(config, "original_max_position_embeddings", None)
            or config.max_position_embeddings
            for rope in _ropes(config, "longrope", "su")
        }
    )


def fixed_positions(config: Any) -> int | None:
    """Positions beyond which rotary embeddings depend on earlier documents; None without any.

    transformers chooses the frequencies of dynamic NTK by the longest document so far, once one
    exceeds the positions of the config.
    """
    return config.max_position_embeddings if any(_ropes(config, "dynamic")) else None


def table_positions(module: PreTrainedModel) -> int | None:
    """Positions available to a document in a padded table of learned positions; None without one.

    RoBERTa's family numbers the tokens of a document from the padding's index plus one, so its
    table of `max_position_embeddings` rows holds fewer.
    """
    size = getattr(module.config.get_text_config(), "max_position_embeddings", None)
    for part in module.modules():
        if (
            isinstance(part, nn.Embedding)
            and part.num_embeddings == size
            and part.padding_idx is not None
            and part is not module.get_input_embeddings()
        ):
            return part.num_embeddings - part.padding_idx - 1
    return None


def _widths(tree: Any, name: str = "") -> Iterator[int]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _widths(value, str(key))
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _widths(value, name)
    elif isinstance(tree, int) and not isinstance(tree, bool) and tree > 0 and _WIDTH.search(name):
        yield tree


def _ropes(config: Any, *kinds: str) -> list[dict[str, Any]]:
    """The parameters of the rotary embeddings of some kinds: one, or one per type of layer."""
    given = getattr(config, "rope_parameters", None) or {}
    ropes = [value for value in given.values() if isinstance(value, dict)] or [given]
    return [rope for rope in ropes if rope.get("rope_type", rope.get("type")) in kinds]
