"""The stamp of a model's states, and the truncation of documents: facts of every mean."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Self


class Truncation(Enum):
    """How to treat a document with more tokens than the context."""

    ERROR = "error"
    KEEP_START = "start"
    KEEP_END = "end"


@dataclass(frozen=True)
class ModelStamp:
    """Everything about a model that its states depend on.

    Attributes:
        model: Hub id, `demo`, or the name of a local directory.
        revision: The hub's commit, or `sha256:` and the hash of a local directory's files.
        tokenizer_sha256: SHA-256 of the tokenizer's canonical JSON, in hexadecimal.
        dtype: dtype of the weights: `float32`, `bfloat16` or `float16`.
        layers: Block numbers of the states.
        hook: TransformerLens' name of the hook in these blocks.
        separate_layers: Whether layers are separate, instead of averaged.
    """

    model: str = ""
    revision: str = ""
    tokenizer_sha256: str = ""
    dtype: str = ""
    layers: tuple[int, ...] = ()
    hook: str = ""
    separate_layers: bool = False

    def states(self) -> Self:
        """The stamp without the dtype: rounding does not make other states."""
        return replace(self, dtype="")

    def same_model(self, other: Self) -> bool:
        """Whether another stamp names the same model, with weights of any dtype."""
        return (
            replace(
                self.states(),
                layers=other.layers,
                hook=other.hook,
                separate_layers=other.separate_layers,
            )
            == other.states()
        )

    def can_center(self, asked: Self) -> bool:
        """Whether a mean of these states can center the requested vectors.

        A mean of separate layers covers any of its layers, averaged or separate, since the mean of
        an average is the average of the means. A mean of averaged layers covers only their average.
        """
        if not self.same_model(asked) or self.hook != asked.hook:
            return False
        if self.separate_layers:
            return set(asked.layers) <= set(self.layers)
        return self.layers == asked.layers and not asked.separate_layers

    def __str__(self) -> str:
        layers = ",".join(map(str, self.layers))
        kind = "separate layers" if self.separate_layers else "layers"
        return f"{self.model} ({self.revision[:15]}), {self.hook} of {kind} {layers}"
