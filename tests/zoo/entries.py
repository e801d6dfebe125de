"""The models of the zoo: each a config, a way to save it, and the required outcome."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from transformers import PreTrainedModel

from actvec.server.model.demo import VOCABULARY
from tests.zoo.building import build
from tests.zoo.saving import Save, one_file

LAYERS = (0, 2, 3)
"""The first of five blocks; the last is not a target, so the model is truncated."""


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    Attributes:
        name: Unique; determines the weights.
        model_type: transformers' name of the architecture.
        exercises: Its special feature.
        config: Settings of its config beside the small sizes of `tiny_config`.
        save: Writes it to disk.
        must: `serve` if a refusal is a fault, `refuse` if serving is one, else `either`.
        layers: Target layers.
        given: Further options of the server, or a function that makes them from the directory.
        vocabulary: Number of ids that documents may use.
    """

    name: str
    model_type: str
    exercises: str = ""
    config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    save: Save = one_file
    must: Literal["serve", "refuse", "either"] = "serve"
    layers: tuple[int, ...] = LAYERS
    given: Callable[[Path], dict[str, Any]] = lambda _: {}
    vocabulary: int = VOCABULARY

    def build(self) -> PreTrainedModel:
        """The module, in float32 with eager attention; `save` may change its weights."""
        return build(self.name, self.model_type, self.config)

    def options(self, directory: Path) -> dict[str, Any]:
        """The arguments of `ModelOptions` beside the model, once it is saved in `directory`."""
        return {"layers": self.layers, **self.given(directory)}
