"""Right or refused: at every start, the packed engine is checked against the model's forward pass.

A short and a long document go through transformers one at a time, then through the packed engine in
one step. The long one exceeds every length beyond which the model's behavior changes, so its states
expose a window, a chunk or a rescaled embedding that the packing misses. If packed attention runs
by blocks, a document of such a length is among them.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from traceback import walk_tb
from typing import Self

import numpy as np
import torch
from torch import nn

from actvec.server.engine.packed import Engine, Ids
from actvec.server.engine.plain import PlainEngine
from actvec.server.errors import StartupError, first_line
from actvec.server.model.loading import LoadedModel
from actvec.server.model.packed.blocked import Blocks
from actvec.server.model.target import RESID_POST, Point

log = logging.getLogger(__name__)

States = list[torch.Tensor]
"""The states `[T, D]` of one document, per layer and hook on offer."""

# Tokens of the short document, and by how many the long one exceeds the last threshold.
_SHORT = 40
_BEYOND = 24

# How often the long document runs: in transformers, and packed, before and after the weights are
# laid out.
_PASSES = 3

# Relative L2 errors of a document's states, and of one token's, in float32 (numerics.md, section
# 6).
DOCUMENT, _TOKEN = 1e-5, 1e-3
# The least tolerance in 16 bits; and the multiple of the difference between two of transformers'
# own attentions.
SIXTEEN_BIT, _TIMES_NOISE = 1e-2, 6.0


@dataclass(frozen=True)
class Finding:
    """The result of checking an engine.

    Attributes:
        error: The largest relative L2 error of a document's states `[T, D]` at any layer and hook.
        reason: Why the engine cannot be trusted with the model; None if it can.
        batch_invariant: Whether states were bitwise the same alone and in a step.
    """

    error: float
    reason: str | None
    batch_invariant: bool


@dataclass(frozen=True)
class SelfCheck:
    """The documents of the check, and the model's own states of them.

    Attributes:
        documents: int64 ids `[T]`: the short one, the long one, one for each way in which
            blocked attention handles a length here, and the short one again.
        points: Where their states are compared.
        expected: Their states from transformers, one document at a time.
        longest: Tokens of the longest document that the check covers.
        tolerance: Relative L2 error allowed in a document's states.
    """

    documents: list[Ids]
    points: list[Point]
    expected: list[States]
    longest: int
    tolerance: float

    @classmethod
    def of(cls, model: LoadedModel, longest: int, seconds: float) -> Self:
        """Run the model as transformers does.

        Args:
            model: The model as loaded.
            longest: Tokens of the longest document to serve.
            seconds: Limit on the check's duration. If it would take longer, it covers only
                documents up to a threshold, and the log reports it.

        Raises:
            StartupError: the model has no residual stream that can be captured, or returns other
                states for the same document a second time.
        """
        plain = PlainEngine(model)
        random = np.random.default_rng(0)
        short = random.integers(0, model.vocabulary, min(_SHORT, longest))
        # The first pass of a process takes longer than the others.
        points = model.card.points
        first = plain.layer_states([short], points)
        began = time.monotonic()
        plain.layer_states([short], points)
        pace = _PASSES * (time.monotonic() - began) / len(short)
        longest, length = _lengths(model.thresholds, longest, pace, seconds)
        lengths = [length]
        if blocks := Blocks.of(model.module):
            starts = [start for start in blocks.starts if start <= longest]
            lengths += [min(longest, start + _SHORT) for start in starts]
        others = [random.integers(0, model.vocabulary, length) for length in lengths]
        documents = [short, *others, short]
        states = [first, *(plain.layer_states([ids], points) for ids in documents[1:])]
        if distance(states[-1], states[0])[0] > DOCUMENT:
            raise StartupError(
                f"cannot serve {model.card.model!r}: its states of the same document differ from "
                "one forward pass to the next"
            )
        _check_hidden_states(plain, short)
        tolerance = DOCUMENT
        if model.card.dtype != "float32":
            tolerance = max(SIXTEEN_BIT, _TIMES_NOISE * _noise(model, short))
        return cls(documents, points, states, longest, tolerance)

    def __call__(self, engine: Engine) -> Finding:
        """Compare an engine's states of the documents, in one step, with the model's own."""
        try:
            found = self._states(engine, self.documents)
            alone = [self._states(engine, [document])[0] for document in self.documents[:-1]]
        except Exception as error:
            log.debug("the self-check failed", exc_info=True)
            return Finding(float("inf"), _why(error), batch_invariant=False)
        errors = [distance(*pair) for pair in zip(found, self.expected, strict=True)]
        document, token = (max(column) for column in zip(*errors, strict=True))
        reason = None
        # If another state is very large, one token's error would drown in the document's.
        if not (document <= self.tolerance and token <= self.tolerance * _TOKEN / DOCUMENT):
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

    def _states(self, engine: Engine, documents: Sequence[Ids]) -> list[States]:
        """The states of documents, in as few forward passes as the engine allows."""
        states: dict[int, States] = {}
        for group in engine.groups([len(ids) for ids in documents]):
            asked = [documents[index] for index in group]
            layers = engine.layer_states(asked, self.points)
            bounds = np.cumsum([0, *map(len, asked)]).tolist()
            for index, (start, end) in zip(group, pairwise(bounds), strict=True):
                states[index] = [layer[start:end].clone() for layer in layers]
        return [states[index] for index in range(len(documents))]


def trusted(model: LoadedModel) -> LoadedModel:
    """Choose an attention of transformers that agrees with its eager one.

    The eager one defines the right result. For some families (Falcon with ALiBi) the fused one,
    transformers' default, computes something else.
    """
    short = short_document(model)
    eager = replace(model, attention="eager")
    apart = distance(
        *(PlainEngine(one).layer_states([short], _after_blocks(one)) for one in (model, eager)),
    )[0]
    allowed = DOCUMENT if model.card.dtype == "float32" else _TIMES_NOISE * SIXTEEN_BIT
    return eager if apart > allowed else model


def _why(error: Exception) -> str:
    """Why an engine failed: in its own words, or naming the part of transformers that broke.

    An error in transformers' code is about its internals: it tells an operator nothing.
    """
    broken = None
    for frame, _ in walk_tb(error.__traceback__):
        place, owner = frame.f_globals["__name__"], frame.f_locals.get("self")
        if place.startswith("actvec."):
            broken = None
        elif place.startswith("transformers.") and isinstance(owner, nn.Module):
            broken = type(owner).__name__
    if broken is None or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return first_line(error)
    return f"transformers' {broken} cannot compute several documents in one row"


def short_document(model: LoadedModel) -> Ids:
    """Some ids of the model, int64 `[T]`: the same at every call."""
    random = np.random.default_rng(0)
    return random.integers(0, model.vocabulary, min(_SHORT, model.card.context))


def _after_blocks(model: LoadedModel) -> list[Point]:
    """The residual stream after every block."""
    return [Point(layer, RESID_POST) for layer in model.card.layers_on_offer]


def _lengths(thresholds: list[int], longest: int, pace: float, seconds: float) -> tuple[int, int]:
    """Choose the longest document that the check covers, and the tokens of the long one.

    Args:
        thresholds: Lengths beyond which the model's behavior changes.
        longest: Tokens of the longest document to serve.
        pace: Seconds per token of the long document.
        seconds: Limit on the check's duration.
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


def distance(found: States, expected: States) -> tuple[float, float]:
    """The largest relative L2 error over the layers: of the document, and of one token.

    States that are not finite count as right if the expected ones are not finite either.
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
def _check_hidden_states(plain: PlainEngine, ids: Ids) -> None:
    """Check the captured states against transformers' own hidden states, if it returns them.

    Raises:
        StartupError: they differ.
    """
    # After the last block, transformers returns the state behind the final norm.
    layers = range(len(plain.decoder.blocks) - 1)
    if not layers:
        return
    states = plain.layer_states([ids], [Point(layer, RESID_POST) for layer in layers])
    out = plain.decoder.text(
        input_ids=torch.from_numpy(ids).to(plain.card.device)[None],
        output_hidden_states=True,
        **plain.decoder.without_cache(),
    )
    hidden = getattr(out, "hidden_states", None)
    if hidden is None or len(hidden) != len(layers) + 2:
        return
    # Recurrent families start their list after the first block, not before it.
    if all(
        distance(states, [hidden[layer + first][0] for layer in layers])[0] > DOCUMENT
        for first in (1, 0)
    ):
        raise StartupError(
            f"cannot serve {plain.card.model!r}: its blocks do not return its residual stream"
        )


def _noise(model: LoadedModel, ids: Ids) -> float:
    """The difference between two of transformers' own attentions; 0 if it has only one."""
    try:
        states = [
            PlainEngine(replace(model, attention=name)).layer_states([ids], _after_blocks(model))
            for name in ("eager", "sdpa")
        ]
    except ValueError:
        return 0.0
    return distance(*states)[0]
