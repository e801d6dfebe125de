"""A peft adapter, such as a LoRA: finds it, and merges its weights into those of a model.

After the merge the model is an ordinary one of its architecture: every engine runs it, and the
self-check compares with it.
"""

import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from actvec.server.errors import StartupError, first_line
from actvec.server.model.hub import ADAPTER, hub_snapshot, is_hub_id
from actvec.server.model.source import directory_revision

log = logging.getLogger(__name__)

_NAME = "default"
# peft's prefix for the model that it wraps.
_PREFIX = "base_model.model."

# The kinds, by peft's names, that change each weight by its own value and the adapter's tensors.
_MERGED = frozenset(
    {
        *("ADALORA", "ADAMSS", "BEFT", "BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "GLORA"),
        *("GRALORA", "HIRA", "HRA", "IA3", "LN_TUNING", "LOHA", "LOKR", "LORA", "MISS", "OFT"),
        *("OSF", "PEANUT", "PSOFT", "PVERA", "RANDLORA", "ROAD", "SHIRA", "SUPERTUNING"),
        *("TRAINABLE_TOKENS", "VERA", "WAVEFT"),
    }
)


@dataclass(frozen=True)
class Adapter:
    """An adapter on this machine.

    Attributes:
        name: Its name in a stamp.
        revision: The hub's commit, or `sha256:` and the hash of a local directory's files.
        directory: A directory in peft's layout.
    """

    name: str
    revision: str
    directory: Path


def find_adapter(adapter: str, revision: str | None = None) -> Adapter:
    """Find an adapter, and download it if it is on the hub.

    Args:
        adapter: A hub id, or a local directory in peft's layout.
        revision: Branch, tag or commit on the hub; None for its default branch.

    Raises:
        StartupError: it does not exist, or is not an adapter.
    """
    path = Path(adapter).expanduser()
    if not path.exists() and is_hub_id(adapter):
        snapshot = hub_snapshot(adapter, revision, files=ADAPTER)
        return Adapter(adapter, snapshot.commit, snapshot.directory)
    if revision is not None:
        raise StartupError(
            f"adapter {adapter!r} is not on the hub, so it has no revision {revision!r}; name none"
        )
    if not (path / ADAPTER.config).is_file():
        raise StartupError(f"{adapter!r} is not an adapter: it has no {ADAPTER.config}")
    if not any((path / name).is_file() for name in ADAPTER.weights):
        raise StartupError(f"adapter {adapter!r} has no weights: no {' or '.join(ADAPTER.weights)}")
    return Adapter(path.resolve().name, directory_revision(path), path)


def merge_adapter(module: PreTrainedModel, adapter: Adapter, removed: Sequence[str]) -> None:
    """Merge an adapter into the weights of a model, in place.

    Args:
        module: The model, on its device.
        adapter: The adapter.
        removed: Paths of modules of the whole model that are not loaded: changes there do not
            affect any state.

    Raises:
        StartupError: peft is not installed, the adapter is of a kind that cannot be merged, or it
            does not fit the model: a tensor has no place, no value, or another shape.
    """
    try:
        import peft  # noqa: PLC0415 - only if an adapter is asked for
    except ModuleNotFoundError as error:
        raise StartupError("adapters need peft: pip install 'actvec[adapter]'") from error
    try:
        # Its warnings concern facts that are checked here.
        with warnings.catch_warnings(action="ignore"):
            _merge(peft, module, adapter, tuple(removed))
    except StartupError:
        raise
    except Exception as error:
        raise StartupError(
            f"adapter {adapter.name!r} does not fit the model: {_why(error)}"
        ) from error
    module.eval().requires_grad_(False)


def _merge(peft: Any, module: PreTrainedModel, adapter: Adapter, removed: tuple[str, ...]) -> None:
    directory = str(adapter.directory)
    config = peft.PeftConfig.from_pretrained(directory)
    _check_kind(config, adapter.name)
    tensors = peft.utils.load_peft_weights(directory, device="cpu")
    loaded = [name for name in tensors if not _is_in(name, removed)]
    if not loaded:
        log.warning(
            "adapter %s changes nothing up to the last target layer: the vectors are the model's "
            "own",
            adapter.name,
        )
        return
    _exclude(config, removed)
    try:
        adapted = peft.PeftModel(module, config, _NAME)
    except peft.utils.error.NoMatchingPeftModuleError:
        homeless, lacking = loaded, []
    else:
        report = adapted.load_adapter(directory, _NAME, torch_device=str(module.device))
        homeless = [name for name in report.unexpected_keys if not _is_in(name, removed)]
        lacking = report.missing_keys
    base = config.base_model_name_or_path
    advice = f"use the model that it was made for, {base!r}" if base else "use its own model"
    if homeless:
        raise StartupError(
            f"adapter {adapter.name!r} changes {_path(homeless[0])}, which the model does not "
            f"have: {advice}"
        )
    if lacking:
        raise StartupError(f"adapter {adapter.name!r} lacks {_path(lacking[0])}: {advice}")
    adapted.merge_and_unload(progressbar=False, safe_merge=True)


def _check_kind(config: Any, name: str) -> None:
    """Refuse adapters that do more than change each weight by its value and their tensors.

    Some add tokens or blocks. Others compute a change from the weights of all blocks, or draw
    random numbers for all of them: a model with fewer blocks would have other ones.
    """
    kind = config.peft_type.value
    if getattr(config, "layer_replication", None):
        why = f"it is of kind {kind} with replicated layers"
    elif kind in _MERGED and not getattr(config, "save_projection", True):
        why = f"its random projection, of kind {kind}, was not saved (save_projection=False)"
    elif kind in _MERGED:
        return
    else:
        why = f"it is of kind {kind}"
    advice = ""
    if not config.is_prompt_learning and not config.is_adaption_prompt:
        advice = "; merge it with peft (merge_and_unload), and serve the model that this gives"
    raise StartupError(f"adapter {name!r} cannot be merged into weights: {why}{advice}")


def _exclude(config: Any, removed: tuple[str, ...]) -> None:
    """Exclude the placeholders of removed modules, which peft cannot change.

    Some kinds of adapters exclude nothing; then peft refuses if it meets one.
    """
    if not hasattr(config, "exclude_modules"):
        return
    excluded = config.exclude_modules or []
    if isinstance(excluded, str):
        config.exclude_modules = "|".join([f"(?:{excluded})", *map(re.escape, removed)])
    else:
        config.exclude_modules = [*excluded, *removed]


def _is_in(tensor: str, modules: tuple[str, ...]) -> bool:
    path = _path(tensor)
    return any(path.startswith(f"{module}.") for module in modules)


def _path(tensor: str) -> str:
    """The model's own name of the weights that an adapter's tensor changes."""
    return tensor.removeprefix(_PREFIX).replace(f".{_NAME}", "")


def _why(error: Exception) -> str:
    """The message of peft or torch in one line: of several mismatched shapes, the first."""
    lines = [line.strip() for line in str(error).splitlines()]
    mismatches = [line for line in lines if line.startswith("size mismatch")]
    return _path(mismatches[0].replace(_PREFIX, "")) if mismatches else first_line(error)
