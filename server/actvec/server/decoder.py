"""The blocks of a transformers model: where they are, what is loaded of it, and their states.

transformers' own modules run, and torch's hooks on the blocks see the residual stream, under the
names that TransformerLens gives it. Nothing here depends on the family of the model.
"""

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedModel

from actvec.server.errors import StartupError

RESID_PRE = "resid_pre"
RESID_POST = "resid_post"


@dataclass(frozen=True)
class HookPoint:
    """What a hook function is told about where it is called, as TransformerLens' HookPoint does.

    Attributes:
        name: TransformerLens' name of the point, for example `blocks.5.hook_resid_post`.
    """

    name: str


Hook = Callable[[torch.Tensor, HookPoint], torch.Tensor | None]
"""A TransformerLens hook function: activation and HookPoint in, None or a replacement out."""


class Removed(nn.Module):
    """Stands for a part of a model that no state depends on: nothing is loaded, and nothing runs.

    Args:
        path: Where the part was, for the error.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def forward(self, *_: Any, **__: Any) -> None:
        """Refuse.

        Raises:
            RuntimeError: always: a model that calls this part needs it for its states.
        """
        raise RuntimeError(f"the model calls {self._path}, which is not loaded")


@dataclass(frozen=True)
class Decoder:
    """The text decoder of a transformers model.

    Attributes:
        text: What takes ids and runs the blocks.
        blocks: The blocks that are loaded, in their order.
    """

    text: PreTrainedModel
    blocks: nn.ModuleList

    @classmethod
    def of(cls, module: PreTrainedModel) -> Self:
        """The decoder of a model whose class `decoder_only` made."""
        text = _text_decoder(module)
        return cls(text, text.get_submodule(module.block_list))

    @torch.inference_mode()
    def states(
        self,
        ids: torch.Tensor,
        layers: Sequence[int],
        hooks: Sequence[tuple[str, Hook]] = (),
        **arguments: Any,
    ) -> list[torch.Tensor]:
        """The residual stream `[T, D]` after each of `layers`, from one forward pass.

        Args:
            ids: int64 `[1, T]`.
            layers: Numbers of blocks, ascending.
            hooks: Hook functions by TransformerLens' name, `blocks.N.hook_resid_pre` or
                `blocks.N.hook_resid_post`. They run first: what they replace is what is returned.
            **arguments: Further arguments of the decoder's forward call.

        Raises:
            RuntimeError: a block ran more than once, or not at all.
        """
        found: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
        with ExitStack() as handles:
            for name, hook in hooks:
                handles.enter_context(self._hooked(name, hook))
            for layer in layers:
                handles.enter_context(
                    self.blocks[layer].register_forward_hook(_keeper(found[layer]))
                )
            self.text(input_ids=ids, **self._without_cache(), **arguments)
        if odd := [layer for layer, states in found.items() if len(states) != 1]:
            raise RuntimeError(f"block {odd[0]} ran {len(found[odd[0]])} times in one forward pass")
        return [states[0] for states in found.values()]

    def _without_cache(self) -> dict[str, Any]:
        known = inspect.signature(self.text.forward).parameters
        return {"use_cache": False} if "use_cache" in known else {}

    def _hooked(self, name: str, hook: Hook) -> Any:
        """The handle of a hook function; leaving its context removes it."""
        _, layer, point = name.split(".")
        block = self.blocks[int(layer)]
        here = HookPoint(name)
        if point == f"hook_{RESID_POST}":

            def after(_: nn.Module, __: Any, output: Any) -> Any:
                replaced = hook(hidden(output), here)
                if replaced is None or not isinstance(output, tuple):
                    return replaced
                return (replaced, *output[1:])

            return block.register_forward_hook(after)
        if point == f"hook_{RESID_PRE}":

            def before(_: nn.Module, given: tuple[Any, ...]) -> Any:
                replaced = hook(given[0], here)
                return None if replaced is None else (replaced, *given[1:])

            return block.register_forward_pre_hook(before)
        raise StartupError(f"no hook point {name!r}: there are hook_{RESID_PRE}, hook_{RESID_POST}")


def hidden(output: Any) -> torch.Tensor:
    """The states `[1, T, D]` in what a block returns: themselves, or the first of several."""
    states: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
    return states


def _keeper(kept: list[torch.Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    def keep(_: nn.Module, __: Any, output: Any) -> None:
        kept.append(hidden(output)[0])

    return keep


def decoder_only(causal_lm: type[PreTrainedModel], blocks: int) -> type[PreTrainedModel]:
    """The same class with the first `blocks` blocks of its text decoder and nothing beside it.

    The unembedding, later blocks, and the parts of a model of text and images that are for images
    are removed while they are on torch's `meta` device, before any weight is read. The final norm
    stays: D numbers, and some families use it elsewhere too.

    The model knows the path of its decoder (`decoder_path`), of the blocks within that
    (`block_list`), and of the modules that are gone (`removed`).

    Raises:
        StartupError: when a model is made that does not keep its blocks in one list.
    """

    class DecoderOnly(causal_lm):  # type: ignore[misc]
        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            text = _text_decoder(self)
            self.block_list = _block_list(text)
            self.decoder_path = path = _path_of(self, text)
            self.removed = _remove_around(self, path)
            every = text.get_submodule(self.block_list)
            text.set_submodule(self.block_list, nn.ModuleList(list(every)[:blocks]))
            self.removed += [
                ".".join(filter(None, (path, self.block_list, str(number))))
                for number in range(blocks, len(every))
            ]
            gone = tuple(f"{removed}." for removed in self.removed)
            tied: dict[str, str] = vars(self)["all_tied_weights_keys"]
            self.all_tied_weights_keys = {
                name: source
                for name, source in tied.items()
                if not name.startswith(gone) and not source.startswith(gone)
            }

    DecoderOnly.__name__ = causal_lm.__name__
    return DecoderOnly


def _text_decoder(module: PreTrainedModel) -> PreTrainedModel:
    decoder = module.get_decoder()
    # Some families call their unembedding the decoder.
    found: PreTrainedModel = decoder if isinstance(decoder, PreTrainedModel) else module.base_model
    return found


def _remove_around(module: nn.Module, path: str) -> list[str]:
    """Remove every module that neither holds that at `path` nor is in it; returns their paths."""
    removed = []
    steps = path.split(".") if path else []
    for depth, step in enumerate(steps):
        parent = module.get_submodule(".".join(steps[:depth]))
        for name, _ in list(parent.named_children()):
            if name != step:
                removed.append(".".join((*steps[:depth], name)))
                setattr(parent, name, Removed(removed[-1]))
    return removed


def _path_of(module: nn.Module, part: nn.Module) -> str:
    paths = (path for path, found in module.named_modules() if found is part)
    return str(next(paths))


def _block_list(text: PreTrainedModel) -> str:
    """Where the list of blocks is within a text decoder.

    Raises:
        StartupError: there is not exactly one list, among the outermost, with a block per layer.
    """
    lists = {
        path: len(found)
        for path, found in text.named_modules()
        if isinstance(found, nn.ModuleList) and path
    }
    layers = text.config.get_text_config().num_hidden_layers
    found = [
        path
        for path, length in lists.items()
        if length == layers and not any(path.startswith(f"{other}.") for other in lists)
    ]
    if len(found) != 1:
        raise StartupError(
            f"a {text.config.model_type!r} model does not keep its {layers} blocks in one list: "
            "its residual stream cannot be captured"
        )
    return str(found[0])
