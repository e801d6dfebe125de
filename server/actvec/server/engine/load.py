"""Loads a model and an engine checked against the model's own forward pass."""

import inspect
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from actvec.server.config import ModelOptions
from actvec.server.engine.packed import Engine, PackedEngine
from actvec.server.engine.plain import PlainEngine
from actvec.server.engine.selfcheck import SelfCheck, trusted, with_parts
from actvec.server.errors import StartupError, first_line
from actvec.server.model.loading import LoadedModel, load_model
from actvec.server.model.target import RESID_POST, Point

log = logging.getLogger(__name__)


def load_engine(
    options: ModelOptions, document_tokens: int | None = None
) -> tuple[Engine, LoadedModel]:
    """Load the model, and choose an engine that computes it correctly.

    Args:
        options: The model, and how to run it.
        document_tokens: Tokens of the longest document to serve; None for the context.

    Raises:
        StartupError: the model or an option is unusable; any other exception becomes its cause.
    """
    # transformers' progress bar adds nothing to a log (unlike the hub's, of a download) and leaves
    # a thread behind.
    disable_progress_bar()
    try:
        return _chosen(options, document_tokens)
    except StartupError:
        raise
    except Exception as error:
        raise StartupError(
            f"cannot run {options.model!r}: {type(error).__name__}: {first_line(error)}"
        ) from error


def _chosen(options: ModelOptions, document_tokens: int | None) -> tuple[Engine, LoadedModel]:
    loaded = load_model(options)
    _check_positions(loaded)
    longest = min(loaded.card.context, document_tokens or loaded.card.context)
    lens = options.engine == "lens"
    if not lens:
        loaded = with_parts(trusted(loaded))
        if options.hook not in loaded.card.hooks:
            raise StartupError(
                f"{options.model!r} has no hook {options.hook!r} to take states from; it has "
                f"{', '.join(loaded.card.hooks)}, and any of TransformerLens' with the engine lens",
                setting="hook",
            )
    check = SelfCheck.of(loaded, longest, options.check_seconds)
    if check.longest < longest:
        loaded = replace(loaded, card=replace(loaded.card, context=check.longest))
    if lens:
        return _lens(options, loaded, check)
    reason = None
    if options.engine != "plain":
        reason = check(PackedEngine(loaded, arranged=False)).reason
        if reason is None:
            return _arranged(options, loaded, check)
        if options.engine == "packed":
            raise StartupError(f"the packed engine cannot run {options.model!r}: {reason}")
        log.warning("%s runs one document at a time, which is slower: %s", options.model, reason)
    loaded = _noted(loaded, batch_invariant=True, engine_note=reason or "")
    return PlainEngine(loaded), loaded


def _check_positions(loaded: LoadedModel) -> None:
    """Check that the model has a position for the last token of the longest document.

    The operator may choose a context beyond the model's own. On a GPU, a position beyond a table
    would later lose the device.

    Raises:
        StartupError: it has none.
    """
    decoder = PlainEngine(loaded).decoder
    if "position_ids" not in inspect.signature(decoder.text.forward).parameters:
        return
    first, last = (
        torch.tensor([[position]], device=loaded.card.device)
        for position in (0, loaded.card.context - 1)
    )

    def run(position: torch.Tensor) -> None:
        points = [Point(0, RESID_POST)]
        decoder.capture(torch.zeros_like(first), points, lambda *_: None, position_ids=position)

    try:
        run(first)
    except Exception:
        # Not for its position: the self-check meets it too, and names the reason.
        return
    try:
        run(last)
    except Exception as error:
        raise StartupError(
            f"{loaded.card.model!r} has no positions for documents of {loaded.card.context} tokens",
            setting="context",
        ) from error


def _lens(
    options: ModelOptions, loaded: LoadedModel, check: SelfCheck
) -> tuple[Engine, LoadedModel]:
    """TransformerLens' engine, which wraps the model's own modules: nothing else can run them."""
    from actvec.server.engine.lens import LensEngine  # noqa: PLC0415 - only on request

    # The check may have set another one.
    loaded.module.set_attn_implementation(loaded.attention)
    engine = LensEngine(loaded)
    engine.layer_states([np.zeros(1, dtype=np.int64)])
    if reason := check(engine).reason:
        raise StartupError(f"TransformerLens cannot run {options.model!r}: {reason}")
    return engine, replace(loaded, card=engine.card)


def _arranged(
    options: ModelOptions, loaded: LoadedModel, check: SelfCheck
) -> tuple[Engine, LoadedModel]:
    """The packed engine: with its fastest layout if that is right, else with the model's layers."""
    engine = PackedEngine(loaded)
    finding = check(engine)
    if finding.reason is not None:
        log.warning("%s keeps its own layers, which is slower: %s", options.model, finding.reason)
        # The layout replaced the model's own modules.
        loaded = replace(loaded, module=load_model(options).module)
        engine = PackedEngine(loaded, arranged=False)
        finding = check(engine)
    loaded = _noted(loaded, batch_invariant=finding.batch_invariant, engine_note="")
    engine.card = loaded.card
    return engine, loaded


def _noted(loaded: LoadedModel, **notes: Any) -> LoadedModel:
    return replace(loaded, card=replace(loaded.card, **notes))
