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
from actvec.server.engine.parts import with_parts
from actvec.server.engine.plain import PlainEngine
from actvec.server.engine.selfcheck import SelfCheck, trusted
from actvec.server.errors import StartupError, first_line
from actvec.server.model.loading import LoadedModel, load_model
from actvec.server.model.positions import PositionTables, named_positions
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
    loaded = _with_positions(load_model(options), options.context)
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


# Tokens of the documents that show a model's tables of positions. Only those have as many rows for
# both: experts too read rows in order, but of the document's states.
_PROBES = (5, 7)


def _with_positions(loaded: LoadedModel, asked: int | None) -> LoadedModel:
    """Limit the context to the model's positions.

    The operator may choose a context beyond them. On a GPU, a position beyond a table would later
    lose the device.

    Args:
        loaded: The model.
        asked: The context that the operator chose; None for the one in the model's config.

    Raises:
        StartupError: the operator chose one, and its last token has no position.
    """
    context = loaded.card.context
    table = _table_positions(loaded)
    if table is not None and table < context:
        if asked is not None:
            raise _beyond(loaded, table)
        return replace(loaded, card=replace(loaded.card, context=table))
    # Positions of another kind, such as a slice of a buffer.
    named = named_positions(loaded.module.config.get_text_config())
    runs: tuple[tuple[int, dict[str, Any]], ...]
    if "position_ids" in inspect.signature(PlainEngine(loaded).decoder.text.forward).parameters:
        ends = torch.tensor([0, context - 1], device=loaded.card.device)
        runs = tuple((1, {"position_ids": end.view(1, 1)}) for end in ends)
    elif named is None or context <= named:
        return loaded
    else:
        runs = (1, {}), (context, {})
    first, last = runs
    try:
        _run_first_block(loaded, first[0], **first[1])
    except Exception:
        # Not for its position: the self-check meets it too, and names the reason.
        return loaded
    try:
        _run_first_block(loaded, last[0], **last[1])
    except Exception as error:
        raise _beyond(loaded, named) from error
    return loaded


def _table_positions(loaded: LoadedModel) -> int | None:
    """The most tokens for which the model's tables of positions have rows; None without any."""
    found = []
    for tokens in _PROBES:
        with PositionTables(tokens) as tables:
            try:
                _run_first_block(loaded, tokens)
            except Exception:
                # The self-check meets it too, and names the reason.
                return None
        found.append(tables.found)
    return min((rows - first for rows, first in set.intersection(*found)), default=None)


def _run_first_block(loaded: LoadedModel, tokens: int, **arguments: Any) -> None:
    """Run the model's first block on a document of one id, and wait until the device is done."""
    # Padding has no position of its own in RoBERTa's family.
    padding = getattr(loaded.module.config.get_text_config(), "pad_token_id", None)
    ids = torch.full((1, tokens), int(padding == 0), device=loaded.card.device)

    def wait(_: Point, states: torch.Tensor) -> None:
        states.cpu()

    PlainEngine(loaded).decoder.capture(ids, [Point(0, RESID_POST)], wait, **arguments)


def _beyond(loaded: LoadedModel, positions: int | None) -> StartupError:
    model, context = loaded.card.model, loaded.card.context
    return StartupError(
        f"{model!r} has no positions for documents of {context} tokens"
        + (f", but for up to {positions}" if positions and positions < context else ""),
        setting="positions",
    )


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
