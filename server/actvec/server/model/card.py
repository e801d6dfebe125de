"""The facts of a loaded model that vectors depend on and callers ask for."""

from dataclasses import dataclass

from actvec.server.model.stamp import ModelStamp
from actvec.server.model.target import RESID_POST, RESID_PRE, Point, Target


@dataclass(frozen=True)
class ModelCard:
    """The facts of a loaded model: those that vectors depend on, and others for callers.

    Attributes:
        model: Hub id, `demo`, or the name of a local directory; with an adapter `MODEL + ADAPTER`.
        revision: The hub's commit, or `sha256:` and the hash of a local directory's files; with an
            adapter both revisions, in the same way.
        architecture: transformers' class, for example `GPTNeoXForCausalLM`.
        n_layers: Blocks of the whole model.
        layers: Target layers, ascending: the default of requests.
        d_model: D, the residual width.
        context: The context in tokens, BOS included.
        dtype: dtype of the weights: `float32`, `bfloat16` or `float16`.
        device: For example `cpu` or `cuda:0`.
        tokenizer_sha256: SHA-256 of the tokenizer's canonical JSON.
        hook: TransformerLens' name of the default hook in the target blocks.
        n_layers_loaded: Number of loaded blocks; requests may name any of them.
        hooks: The hooks on offer.
        chat_template_sha256: SHA-256 of the tokenizer's chat template; empty without one.
        chat_template_date: The date passed to the template as today's; empty if it does not ask.
        batch_invariant: Whether a document's states were bitwise the same alone and in a step, with
            this engine on this machine.
        engine_note: Why the engine is not the packed one; empty if it is, or if another was
            requested.
    """

    model: str
    revision: str
    architecture: str
    n_layers: int
    layers: tuple[int, ...]
    d_model: int
    context: int
    dtype: str
    device: str
    tokenizer_sha256: str
    hook: str = RESID_POST
    n_layers_loaded: int = 0
    hooks: tuple[str, ...] = (RESID_POST, RESID_PRE)
    chat_template_sha256: str = ""
    chat_template_date: str = ""
    batch_invariant: bool = True
    engine_note: str = ""

    @property
    def target(self) -> Target:
        """The default target of requests."""
        return Target(self.layers, self.hook)

    @property
    def stamp(self) -> ModelStamp:
        """The facts that a vector of the default target depends on."""
        return self.stamp_of(self.target)

    def stamp_of(self, target: Target) -> ModelStamp:
        """The facts that a vector of a target depends on."""
        return ModelStamp(
            model=self.model,
            revision=self.revision,
            tokenizer_sha256=self.tokenizer_sha256,
            dtype=self.dtype,
            layers=target.layers,
            hook=target.hook,
            separate_layers=target.separate,
        )

    @property
    def layers_on_offer(self) -> range:
        """The layers on offer."""
        return range(self.n_layers_loaded)

    @property
    def points(self) -> list[Point]:
        """Every layer at every hook on offer, in the order of a forward pass."""
        every = [Point(layer, hook) for layer in self.layers_on_offer for hook in self.hooks]
        return sorted(every, key=lambda point: point.place)
