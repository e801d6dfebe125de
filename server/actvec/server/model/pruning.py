"""Prunes a model before its weights are read, to the first blocks of its text decoder."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from actvec.server.errors import StartupError


class Removed(nn.Module):
    """Replaces a part of a model that no state depends on: it loads and runs nothing.

    Args:
        path: The part's path, for the error.
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


def pruned(
    causal_lm: type[PreTrainedModel], blocks: int, *, whole: bool = False
) -> type[PreTrainedModel]:
    """Derive a class with only the first `blocks` blocks of its text decoder.

    It removes the unembedding, later blocks, and the parts of a model of text and images that are
    for images, while they are on torch's `meta` device, before any weight is read. The final norm
    stays: it is D numbers, and some families use it elsewhere too.

    The model knows the path of its decoder (`decoder_path`), of the blocks within that
    (`block_list`), and of the removed modules (`removed`).

    Args:
        causal_lm: transformers' class.
        blocks: How many blocks to keep.
        whole: Whether to remove nothing but later blocks.

    Raises:
        StartupError: on construction, if the model does not keep its blocks in one list.
    """

    class Pruned(causal_lm):  # type: ignore[misc]
        @classmethod
        def is_custom_code(cls) -> bool:
            """Whether transformers skips renaming tensors and computing buffers that no file has.

            It recognizes its own classes by their module, and would take this one for foreign code.
            """
            return bool(causal_lm.is_custom_code())

        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            text = text_decoder(self)
            self.block_list = _block_list(text)
            self.decoder_path = path = _path_of(self, text)
            self.removed = [] if whole else _remove_around(self, path)
            every = text.get_submodule(self.block_list)
            above = ".".join(filter(None, (path, self.block_list)))
            self.removed += [f"{above}.{number}" for number in range(blocks, len(every))]
            text.set_submodule(self.block_list, nn.ModuleList(list(every)[:blocks]))
            # transformers ties by the second, peft by the first.
            for name in ("_tied_weights_keys", "all_tied_weights_keys"):
                setattr(self, name, self._still_there(getattr(self, name) or {}))

        def _still_there(self, tied: dict[str, str]) -> dict[str, str]:
            """Weights and those that they are tied to, without those of removed modules."""
            gone = tuple(f"{removed}." for removed in self.removed)
            return {
                name: source
                for name, source in tied.items()
                if not name.startswith(gone) and not source.startswith(gone)
            }

        def _init_weights(self, module: nn.Module) -> None:
            # The initialization of a whole model concerns its unembedding, which is removed.
            if module is not self:
                super()._init_weights(module)

    # transformers looks up how to rename a checkpoint's tensors by this name.
    Pruned.__name__ = causal_lm.__name__
    return Pruned


def text_decoder(module: PreTrainedModel) -> PreTrainedModel:
    """The module that takes ids and runs the blocks; of a multimodal model, its text part."""
    decoder = module.get_decoder()
    # Some families call their unembedding the decoder.
    found: PreTrainedModel = decoder if isinstance(decoder, PreTrainedModel) else module.base_model
    return found


def _remove_around(module: nn.Module, path: str) -> list[str]:
    """Remove each module that neither contains the one at `path` nor is in it; list their paths."""
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
    """Find the list of blocks in a text decoder.

    Raises:
        StartupError: there is not exactly one outermost list with a block per layer.
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
