"""The blocks of a transformers model, and their states.

transformers' own modules run, and torch's hooks on the blocks see the residual stream, under
TransformerLens' names. Nothing here depends on the model's family.
"""

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedModel

from actvec.server.errors import StartupError
from actvec.server.model.pruning import text_decoder
from actvec.server.model.target import RESID_POST, RESID_PRE, Point, Take


class _Taken(Exception):  # noqa: N818 - it ends a forward pass, and is not an error
    """All requested states are captured: later blocks need not run."""


@dataclass(frozen=True)
class Decoder:
    """The text decoder of a transformers model.

    Attributes:
        text: The module that takes ids and runs the blocks.
        blocks: The loaded blocks, in order.
        parts: Paths of attention and MLP within each block, by hook.
    """

    text: PreTrainedModel
    blocks: nn.ModuleList
    parts: Mapping[str, str]

    @classmethod
    def of(cls, module: PreTrainedModel, parts: Mapping[str, str] = MappingProxyType({})) -> Self:
        """Return the decoder of a model whose class `pruned` made."""
        text = text_decoder(module)
        return cls(text, text.get_submodule(module.block_list), parts)

    @torch.inference_mode()
    def capture(
        self,
        ids: torch.Tensor,
        points: Sequence[Point],
        take: Take,
        **arguments: Any,
    ) -> int:
        """Pass the states `[T, D]` at some points on as one forward pass reaches them.

        The pass ends with the last of them, so later blocks do not run.

        Args:
            ids: int64 `[1, T]`.
            points: Where to capture states.
            take: Receives them.
            **arguments: Further arguments of the decoder's forward call.

        Returns:
            The number of blocks whose attention ran.

        Raises:
            StartupError: a block ran more than once, or not at all.
        """
        end = max(point.place for point in points)
        last = sum(point.place == end for point in points)
        # A pass that reaches the last block runs to its end, which reveals a block that runs twice.
        whole = end[0] == len(self.blocks) - 1
        seen: Counter[Point] = Counter()

        def taken(point: Point, states: torch.Tensor) -> None:
            seen[point] += 1
            if seen[point] == 1:
                take(point, states)
            if not whole and sum(seen[one] > 0 for one in points if one.place == end) == last:
                raise _Taken

        with ExitStack() as handles:
            for point in points:
                handles.enter_context(self._tapped(point, taken))
            with suppress(_Taken):
                self.text(input_ids=ids, **self.without_cache(), **arguments)
        if odd := [point for point in points if seen[point] != 1]:
            raise StartupError(
                f"the model runs its block {odd[0].layer} {seen[odd[0]]} times for a document, "
                "where a residual stream passes each block once"
            )
        return len(self.blocks) if whole else end[0] + (end[1] > 0)

    def without_cache(self) -> dict[str, Any]:
        """The argument that turns off the cache for a next token, if the decoder knows one."""
        known = inspect.signature(self.text.forward).parameters
        return {"use_cache": False} if "use_cache" in known else {}

    def _tapped(self, point: Point, take: Take) -> Any:
        """Register the capture of states at a point; leaving the handle's context removes it."""
        block = self.blocks[point.layer]
        if point.hook == RESID_PRE:

            def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                take(point, (args[0] if args else kwargs["hidden_states"])[0])

            return block.register_forward_pre_hook(before, with_kwargs=True)
        if point.hook == RESID_POST:
            module = block
        elif point.hook in self.parts:
            module = block.get_submodule(self.parts[point.hook])
        else:
            raise RuntimeError(f"this model's blocks have no {point.hook}")

        def after(_: nn.Module, __: Any, output: Any) -> None:
            take(point, hidden(output)[0])

        return module.register_forward_hook(after)


def hidden(output: Any) -> torch.Tensor:
    """Return the states `[1, T, D]` in a block's output: the output itself, or its first item."""
    states: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
    return states
