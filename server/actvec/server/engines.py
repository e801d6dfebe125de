"""From options to an engine that has run once."""

from transformers.utils.logging import disable_progress_bar

from actvec.server.config import ModelOptions
from actvec.server.engine import Engine, PackedEngine, warm_up
from actvec.server.errors import StartupError
from actvec.server.model import RESID_POST, LoadedModel, load_model


def load_engine(options: ModelOptions) -> tuple[Engine, LoadedModel]:
    """Load the model and run one token through the engine, so that what is wrong shows now.

    Raises:
        StartupError: the model or an option is not usable.
    """
    # The bar of transformers' loading says nothing in a log (the hub's own, of a download, does)
    # and leaves a thread behind.
    disable_progress_bar()
    lens = options.engine == "lens"
    if options.hook != RESID_POST and not lens:
        raise StartupError(f"--hook {options.hook} needs --engine lens")
    loaded = load_model(
        options.model,
        revision=options.revision,
        layers=options.layers,
        dtype=options.dtype,
        device=options.device,
        hook=options.hook,
        whole=lens,
    )
    engine: Engine
    if lens:
        from actvec.server.lens import LensEngine  # noqa: PLC0415 - only where it is asked for

        engine = LensEngine(loaded)
    else:
        engine = PackedEngine(loaded)
    warm_up(engine)
    return engine, loaded
