"""What in a model's config changes with the length of a document, or of a whole row."""

import re
from collections.abc import Iterator
from typing import Any

# Widths that documents may outgrow: windows, chunks, the tokens that sparse attention picks.
_WIDTH = re.compile(r"(^|_)(sliding_window|window_size|attention_window|chunk_size|index_topk)$")
_ROW_MAXIMUM = {"longrope", "su", "dynamic"}


def thresholds(config: Any) -> list[int]:
    """Lengths, ascending, beyond which a model treats the tokens of a document otherwise.

    Args:
        config: The text decoder's.

    Example:
        >>> thresholds(MistralConfig(sliding_window=4096))
        [4096]
    """
    return sorted({*_widths(config.to_dict()), *row_thresholds(config)})


def row_thresholds(config: Any) -> list[int]:
    """Lengths, ascending, at which rotary embeddings change for the whole row of a forward pass.

    transformers chooses the frequencies of LongRoPE and of dynamic NTK by the largest position in
    the row. Documents on different sides of such a length cannot share one.
    """
    found = set()
    for rope in _ropes(getattr(config, "rope_parameters", None)):
        if rope.get("rope_type", rope.get("type")) in _ROW_MAXIMUM:
            found.add(
                rope.get("original_max_position_embeddings")
                or getattr(config, "original_max_position_embeddings", None)
                or config.max_position_embeddings
            )
    return sorted(found)


def _widths(tree: Any, name: str = "") -> Iterator[int]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _widths(value, str(key))
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _widths(value, name)
    elif isinstance(tree, int) and not isinstance(tree, bool) and tree > 0 and _WIDTH.search(name):
        yield tree


def _ropes(parameters: Any) -> Iterator[dict[str, Any]]:
    """The parameters of each kind of rotary embedding: of one, or of one per type of layer."""
    if isinstance(parameters, dict):
        if any(isinstance(value, dict) for value in parameters.values()):
            for value in parameters.values():
                yield from _ropes(value)
        else:
            yield parameters
