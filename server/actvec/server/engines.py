"""From options to an engine that was held against the model's own forward pass."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
from transformers.utils.logging import disable_progress_bar

from actvec.server.config import ModelOptions
from actvec.server.decoder import RESID_POST
from actvec.server.engine import Engine, PackedEngine
from actvec.server.errors import StartupError, first_line
from actvec.server.model import LoadedModel, load_model
from actvec.server.plain import PlainEngine
from actvec.server.selfcheck import SelfCheck, trusted

log = logging.getLogger(__name__)


def load_engine(
    options: ModelOptions, document_tokens: int | None = None
) -> tuple[Engine, LoadedModel]:
    """Load the model, and choose an engine that is right for it.

    Args:
        options: Which model, and how it is run.
        document_tokens: Tokens of the longest document that is served; None for the context.

    Raises:
        StartupError: the model or an option is not usable; whatever else is raised on the way is
            its cause.
    """
    # The bar of transformers' loading says nothing in a log (the hub's own, of a download, does)
    # and leaves a thread behind.
    disable_progress_bar()
    if options.hook != RESID_POST and options.engine != "lens":
        raise StartupError(f"--hook {options.hook} needs --engine lens")
    try:
        return _chosen(options, document_tokens)
    except StartupError:
        raise
    except Exception as error:
        raise StartupError(
            f"cannot run {options.model!r}: {type(error).__name__}: {first_line(error)}"
        ) from error


def _chosen(options: ModelOptions, document_tokens: int | None) -> tuple[Engine, LoadedModel]:
    loaded = _load(options)
    if options.engine == "lens":
        from actvec.server.lens import LensEngine  # noqa: PLC0415 - only where it is asked for

        lens = LensEngine(loaded)
        lens.layer_states([np.zeros(1, dtype=np.int64)])
        return lens, loaded
    longest = min(loaded.card.context, document_tokens or loaded.card.context)
    loaded = trusted(loaded)
    check = SelfCheck.of(loaded, longest, options.check_seconds)
    if check.longest < longest:
        loaded = replace(loaded, card=replace(loaded.card, context=check.longest))
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


def _arranged(
    options: ModelOptions, loaded: LoadedModel, check: SelfCheck
) -> tuple[Engine, LoadedModel]:
    """The packed engine as it is fastest, or else as it was found right."""
    engine = PackedEngine(loaded)
    finding = check(engine)
    if finding.reason is not None:
        log.warning("%s keeps its own layers, which is slower: %s", options.model, finding.reason)
        # The model's own modules are gone.
        loaded = replace(loaded, module=_load(options).module)
        engine = PackedEngine(loaded, arranged=False)
        finding = check(engine)
    loaded = _noted(loaded, batch_invariant=finding.batch_invariant, engine_note="")
    engine.card = loaded.card
    return engine, loaded


def _noted(loaded: LoadedModel, **notes: Any) -> LoadedModel:
    return replace(loaded, card=replace(loaded.card, **notes))


def _load(options: ModelOptions) -> LoadedModel:
    return load_model(
        options.model,
        revision=options.revision,
        layers=options.layers,
        dtype=options.dtype,
        device=options.device,
        hook=options.hook,
        whole=options.engine == "lens",
        context=options.context,
    )
