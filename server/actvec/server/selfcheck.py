"""Right or refused: the packed engine held against the model's own forward pass, at every start.

A short and a long document go through transformers one at a time, then through the packed engine in
one step. The long one exceeds every length beyond which the model changes what it does, so that a
window, a chunk or a rescaled embedding that the packing misses shows in its states.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np
import torch

from actvec.server.engine import Engine, Ids
from actvec.server.errors import StartupError, first_line
from actvec.server.model import LoadedModel
from actvec.server.plain import PlainEngine

log = logging.getLogger(__name__)

States = list[torch.Tensor]
"""The states `[T, D]` of one document, per target layer."""

# Tokens of the short document, and by how many the long one exceeds the last threshold.
_SHORT = 40
_BEYOND = 24

# How often the long document runs: as transformers runs it, and packed, before and after the
# weights are laid out.
_PASSES = 3

# Relative L2 error of a document's states, and of one token's, in float32 (numerics.md, section 6).
_DOCUMENT, _TOKEN = 1e-5, 1e-3
# In 16 bits, at least; and how many times what two of transformers' own attentions differ by.
_SIXTEEN_BIT, _TIMES_NOISE = 1e-2, 6.0


@dataclass(frozen=True)
class Finding:
    """What the check of an engine found.

    Attributes:
        error: The largest relative L2 error of a document's states `[T, D]` in any layer.
        reason: Why the engine cannot be trusted with the model; None if it can.
        batch_invariant: Whether states were bit for bit the same alone and in a step.
    """

    error: float
    reason: str | None
    batch_invariant: bool


@dataclass(frozen=True)
class SelfCheck:
    """The documents of the check, and what the model itself makes of them.

    Attributes:
        documents: int64 ids `[T]`: the short one, the long one, and the short one once more.
        expected: Their states, from transformers, one document at a time.
        longest: Tokens of a document that the check covers.
        tolerance: Relative L2 error that a document's states may have.
    """

    documents: list[Ids]
    expected: list[States]
    longest: int
    tolerance: float

    @classmethod
    def of(cls, model: LoadedModel, longest: int, seconds: float) -> Self:
        """Run the model as transformers does.

        Args:
            model: As it was loaded.
            longest: Tokens of a document that may be served.
            seconds: How long the check may take. Where it would take longer, only documents up to
                a threshold are covered, and the log says so.

        Raises:
            StartupError: the model has no residual stream that can be captured, or gives other
                states when it sees the same document again.
        """
        plain = PlainEngine(model)
        random = np.random.default_rng(0)
        vocabulary = model.module.get_input_embeddings().weight.shape[0]
        short = random.integers(0, vocabulary, min(_SHORT, longest))
        # The first pass of a process takes longer than the others.
        first = plain.layer_states([short])
        began = time.monotonic()
        plain.layer_states([short])
        pace = _PASSES * (time.monotonic() - began) / len(short)
        longest, length = _lengths(model.thresholds, longest, pace, seconds)
        long = random.integers(0, vocabulary, length)
        states = [first, plain.layer_states([long]), plain.layer_states([short])]
        if _distance(states[2], states[0])[0] > _DOCUMENT:
            raise StartupError(
                f"cannot serve {model.card.model!r}: its states of the same document differ from "
                "one forward pass to the next"
            )
        _check_hidden_states(plain, short, model)
        tolerance = _DOCUMENT
        if model.card.dtype != "float32":
            tolerance = max(_SIXTEEN_BIT, _TIMES_NOISE * _noise(model, short))
        return cls([short, long, short], states, longest, tolerance)

    def __call__(self, engine: Engine) -> Finding:
        """Compare an engine's states of the documents, in one step, with the model's own."""
        try:
            found = run_grouped(engine, self.documents)
            alone = [run_grouped(engine, [document])[0] for document in self.documents[:2]]
        except Exception as error:
            log.debug("the self-check failed", exc_info=True)
            return Finding(float("inf"), first_line(error), batch_invariant=False)
        errors = [_distance(*pair) for pair in zip(found, self.expected, strict=True)]
        document, token = (max(column) for column in zip(*errors, strict=True))
        reason = None
        # One token's error would drown in a document's where another's state is very large.
        if not (document <= self.tolerance and token <= self.tolerance * _TOKEN / _DOCUMENT):
            reason = (
                f"its states differ from transformers' by {document:.1e} "
                f"(one token's by {token:.1e})"
            )
        same = all(
            torch.equal(ours, theirs)
            for one, other in zip(found, alone, strict=False)
            for ours, theirs in zip(one, other, strict=True)
        )
        return Finding(document, reason, batch_invariant=same)


def trusted(model: LoadedModel) -> LoadedModel:
    """The model with an attention of transformers' that agrees with its eager one.

    The eager one defines what is right. Of some families (Falcon with ALiBi) the fused one, which
    transformers chooses by itself, computes something else.
    """
    vocabulary = model.module.get_input_embeddings().weight.shape[0]
    short = np.random.default_rng(0).integers(0, vocabulary, min(_SHORT, model.card.context))
    eager = replace(model, attention="eager")
    apart = _distance(
        *(PlainEngine(one).layer_states([short]) for one in (model, eager)),
    )[0]
    allowed = _DOCUMENT if model.card.dtype == "float32" else _TIMES_NOISE * _SIXTEEN_BIT
    return eager if apart > allowed else model


def run_grouped(engine: Engine, documents: Sequence[Ids]) -> list[States]:
    """The states of each document, in as few forward passes as the engine allows."""
    states: dict[int, States] = {}
    for group in engine.groups([len(ids) for ids in documents]):
        layers = engine.layer_states([documents[index] for index in group])
        bounds = np.cumsum([0, *(len(documents[index]) for index in group)]).tolist()
        for index, (start, end) in zip(group, pairwise(bounds), strict=True):
            states[index] = [layer[start:end].clone() for layer in layers]
    return [states[index] for index in range(len(documents))]


def _lengths(thresholds: list[int], longest: int, pace: float, seconds: float) -> tuple[int, int]:
    """Tokens of a document that the check covers, and of the long one.

    Args:
        thresholds: Lengths beyond which the model treats tokens otherwise.
        longest: Tokens of a document that may be served.
        pace: Seconds that a token of the long document takes.
        seconds: How long the check may take.
    """
    beyond = [length for length in thresholds if length < longest]
    while beyond and pace * (beyond[-1] + _BEYOND) > seconds:
        expected = pace * (beyond[-1] + _BEYOND)
        longest = beyond.pop()
        log.warning(
            "documents of more than %d tokens are not served: the model treats them otherwise, and "
            "to check them would take %.0f seconds here, of %g that the check may take",
            *(longest, expected, seconds),
        )
    return longest, min(longest, (beyond[-1] if beyond else _SHORT) + _BEYOND)


def _distance(found: States, expected: States) -> tuple[float, float]:
    """The largest relative L2 error over the layers: of the document, and of one token.

    States that are not finite count as right where the expected ones are not finite either.
    """
    document, token = 0.0, 0.0
    for ours, theirs in zip(found, expected, strict=True):
        x, y = ours.double(), theirs.double()
        finite = y.isfinite().all(-1)
        if not torch.equal(finite, x.isfinite().all(-1)):
            return float("inf"), float("inf")
        x, y = x[finite], y[finite]
        if len(y):
            document = max(document, float((x - y).norm() / y.norm()))
            token = max(token, float(((x - y).norm(dim=-1) / y.norm(dim=-1)).max()))
    return document, token


@torch.inference_mode()
def _check_hidden_states(plain: PlainEngine, ids: Ids, model: LoadedModel) -> None:
    """Hold what is captured against what transformers itself calls hidden states, if it does.

    Raises:
        StartupError: they are not the same.
    """
    on_device = torch.from_numpy(ids).to(model.card.device)[None]
    # After the last block transformers gives the state behind the final norm.
    layers = range(len(plain.decoder.blocks) - 1)
    states = plain.decoder.states(on_device, layers)
    out = plain.decoder.text(input_ids=on_device, output_hidden_states=True)
    hidden = getattr(out, "hidden_states", None)
    if hidden is None or len(hidden) != len(layers) + 2:
        return
    # Recurrent families begin their list after the first block instead of before it.
    if all(
        _distance(states, [hidden[layer + first][0] for layer in layers])[0] > _DOCUMENT
        for first in (1, 0)
    ):
        raise StartupError(
            f"cannot serve {model.card.model!r}: what its blocks return is not its residual stream"
        )


def _noise(model: LoadedModel, ids: Ids) -> float:
    """By how much two of transformers' own attentions differ; 0 where it has one only."""
    try:
        states = [
            PlainEngine(replace(model, attention=name)).layer_states([ids])
            for name in ("eager", "sdpa")
        ]
    except ValueError:
        return 0.0
    return _distance(*states)[0]
