"""transformers itself, one document at a time: right for every decoder, and slow."""

from collections.abc import Sequence

import torch

from actvec.server.decoder import Decoder, Hook
from actvec.server.engine import Engine, Ids
from actvec.server.model import LoadedModel


class PlainEngine(Engine):
    """Runs each document by itself, through the model as transformers runs it.

    Args:
        model: The model, without its ends.
        hooks: As for `PackedEngine`.
    """

    name = "plain"

    def __init__(self, model: LoadedModel, hooks: Sequence[tuple[str, Hook]] = ()) -> None:
        self.card = model.card
        model.module.set_attn_implementation(model.attention)
        self.decoder = Decoder.of(model.module)
        self._hooks = list(hooks)

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Each document alone."""
        return [[index] for index in range(len(lengths))]

    def layer_states(self, documents: Sequence[Ids]) -> list[torch.Tensor]:
        """The states `[T, D]` of each target layer, of one document."""
        (ids,) = documents
        on_device = torch.from_numpy(ids).to(self.card.device)[None]
        states = self.decoder.states(on_device, self.card.layers, self._hooks)
        if any(state.shape != (len(ids), self.card.d_model) for state in states):
            raise RuntimeError(
                f"its blocks give states of shapes {[tuple(state.shape) for state in states]} for "
                f"{len(ids)} tokens, where a residual stream has {self.card.d_model} numbers per "
                "token"
            )
        return states
