"""The reference: transformers' own model, one document at a time, hooks on its blocks.

numerics.md section 6 names `output_hidden_states`. The hooks give the same states without their
exceptions: the last entry is after the final norm, and some families record other points.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel


class NoReferenceError(Exception):
    """A model whose blocks do not run once each in their order has no state "after block l"."""


def reference_states(
    module: PreTrainedModel, documents: Sequence[NDArray[np.int64]], layers: Sequence[int]
) -> list[NDArray[np.float64]]:
    """The states `H [T, D]` of each document, averaged over the layers.

    The shortest document runs first: rotary embeddings of kind `dynamic` keep the frequencies of
    the longest one so far.

    Raises:
        NoReferenceError: blocks run never, several times, or in another order.
    """
    blocks = decoder_blocks(module)
    found: list[NDArray[np.float64]] = [np.empty(0)] * len(documents)
    for index in sorted(range(len(documents)), key=lambda index: len(documents[index])):
        states = _block_states(module, blocks, documents[index])
        found[index] = np.mean([states[layer] for layer in layers], axis=0)
    return found


def decoder_blocks(module: PreTrainedModel) -> nn.ModuleList:
    """The blocks of the text decoder: the outermost list that has as many members as the config."""
    count = module.config.get_text_config(decoder=True).num_hidden_layers
    # Some families call their unembedding the decoder.
    for root in (module.get_decoder(), module):
        lists = [
            (name.count("."), child)
            for name, child in root.named_modules()
            if isinstance(child, nn.ModuleList) and len(child) == count
        ]
        if lists:
            return min(lists, key=lambda pair: pair[0])[1]
    raise NoReferenceError(f"{type(module).__name__} has no list of {count} blocks")


def _block_states(
    module: PreTrainedModel, blocks: nn.ModuleList, ids: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """The state `[T, D]` after each block."""
    order: list[int] = []
    states: list[NDArray[np.float64]] = []

    def keep(index: int) -> object:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            state = output[0] if isinstance(output, tuple | list) else output
            order.append(index)
            states.append(state.reshape(-1, state.shape[-1]).double().numpy())

        return hook

    handles = [block.register_forward_hook(keep(index)) for index, block in enumerate(blocks)]
    try:
        with torch.inference_mode():
            module(torch.from_numpy(ids)[None], use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if order != list(range(len(blocks))):
        raise NoReferenceError(f"its blocks run in the order {order}")
    if any(len(state) != len(ids) for state in states):
        raise NoReferenceError(f"its blocks give {len(states[0])} states for {len(ids)} tokens")
    return states
