"""transformers itself, one document at a time: right for every decoder, and slow."""

from collections.abc import Sequence

import torch

from actvec.server.engine.packed import Engine, Ids
from actvec.server.errors import StartupError
from actvec.server.model.decoder import Decoder
from actvec.server.model.loading import LoadedModel
from actvec.server.model.target import Point, Take


class PlainEngine(Engine):
    """Runs each document alone, through the model as transformers runs it.

    Args:
        model: The model, without its ends.
    """

    name = "plain"

    def __init__(self, model: LoadedModel) -> None:
        self.card = model.card
        model.module.set_attn_implementation(model.attention)
        self.decoder = Decoder.of(model.module, model.parts)

    def capture(self, documents: Sequence[Ids], points: Sequence[Point], take: Take) -> None:
        """Run one document.

        Raises:
            StartupError: the blocks do not return a residual stream.
        """
        (ids,) = documents
        shape = (len(ids), self.card.d_model)

        def checked(point: Point, states: torch.Tensor) -> None:
            if states.shape != shape:
                raise StartupError(
                    f"the model's block {point.layer} gives states of shape {tuple(states.shape)} "
                    f"for {len(ids)} tokens, where a residual stream has {self.card.d_model} "
                    "numbers per token"
                )
            take(point, states)

        on_device = torch.from_numpy(ids).to(self.card.device)[None]
        self.decoder.capture(on_device, points, checked)
