"""A model's positions, and the lengths beyond which its behavior changes."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Names of widths that documents may exceed: windows, chunks, the tokens that sparse attention
# picks.
_WIDTH = re.compile(r"(^|_)(sliding_window|window_size|attention_window|chunk_size|index_topk)$")

# Names in the configs of model families for the number of positions.
_CONTEXT_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "max_target_positions",
    "seq_length",
    "context_length",
)


def named_positions(config: Any) -> int | None:
    """The number of positions that a text decoder's config names; None without any."""
    for name in _CONTEXT_NAMES:
        number = getattr(config, name, None)
        if isinstance(number, int) and number > 0:
            return number
    return None


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


class PositionTables(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Finds the tables of positions: a pass in this context reads one row per token, in order.

    The first token's row need not be the first: some families keep rows for padding.

    Args:
        tokens: Tokens of the document, two or more, all with the same id.

    Attributes:
        found: The number of rows, and the row of the first token, of each.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tokens = tokens
        self.found: set[tuple[int, int]] = set()

    def __torch_dispatch__(
        self, function: Any, _: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Note a table, and call torch's function."""
        aten = torch.ops.aten
        if function is aten.embedding.default:
            self._note(args[0], args[1])
        elif function is aten.index_select.default and args[1] == 0:
            self._note(args[0], args[2])
        elif function is aten.index.Tensor and len(args[1]) == 1:
            self._note(args[0], args[1][0])
        return function(*args, **kwargs or {})

    def _note(self, table: torch.Tensor, rows: torch.Tensor) -> None:
        if rows.dtype is torch.int64 and rows.numel() == self._tokens:
            first, *_ = read = rows.flatten().tolist()
            if read == list(range(first, first + self._tokens)):
                self.found.add((len(table), first))
