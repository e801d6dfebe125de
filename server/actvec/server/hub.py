"""The model hub: from a model's id and revision to a commit and a directory on this machine.

The revision is resolved once. Everything is then read from one directory of one commit, so that no
later request is needed and no two commits can be mixed. `huggingface_hub` reads its variables
(`HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`) when it is imported.
"""

import glob
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from actvec.server.errors import StartupError

log = logging.getLogger(__name__)

# In the order in which transformers looks for them; each whole, or in shards that an index names.
MODEL_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

# One of them is in each repository that can be loaded.
_CONFIGS = ["config.json", "adapter_config.json"]

# Config, tokenizer, chat template and the indexes of shards: in a repository's root, and small.
_FACTS = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
_NO_FACTS = ["*/*", "trainer_state.json"]
_TEMPLATES = "additional_chat_templates/*.jinja"


@dataclass(frozen=True)
class HubSnapshot:
    """A repository's files on this machine, all of one commit.

    Attributes:
        commit: 40 hexadecimal digits.
        directory: In the hub's cache; transformers loads it as any directory.
    """

    commit: str
    directory: Path


def hub_snapshot(
    model: str, revision: str | None = None, *, weights: Sequence[str] = MODEL_WEIGHTS
) -> HubSnapshot:
    """Download what loading a model needs, or find it in the cache.

    Of several formats of weights the first of `weights` that the repository has is downloaded, and
    nothing else is: no other format, no optimizer, no subfolder but chat templates. The hub is
    asked which commit `revision` is, unless it is a commit already or `HF_HUB_OFFLINE` is set. A
    hub that cannot be reached is replaced by the cache.

    Args:
        model: The repository's id, for example `EleutherAI/pythia-12b`.
        revision: Branch, tag or commit; None for the default branch.
        weights: Names of files of weights, by preference.

    Raises:
        StartupError: there is no such model or revision, it is gated, the hub cannot be reached and
            the cache does not hold it, or the repository has no such weights. One line.

    Example:
        >>> snapshot = hub_snapshot("EleutherAI/pythia-70m", "step3000")  # doctest: +SKIP
        >>> AutoConfig.from_pretrained(snapshot.directory)  # doctest: +SKIP
    """
    with _one_line(model, revision):
        commit = HfApi().resolve_revision(
            model, revision=revision, local_files_only=constants.is_offline_mode()
        )
        # The listing of a commit's files is fetched here, once, and cached for what follows.
        directory = Path(
            snapshot_download(
                model, revision=commit, allow_patterns=_FACTS, ignore_patterns=_NO_FACTS
            )
        )
        snapshot = HubSnapshot(commit.resolved, directory)
        log.info("model %s is commit %s, in %s", model, snapshot.commit, directory)
        if not any((directory / name).is_file() for name in _CONFIGS):
            raise StartupError(
                f"model {model!r} at commit {snapshot.commit} has no config.json: it is not in"
                " transformers' layout"
            )
        _fetch_weights(model, snapshot, _explicit_weights(directory) or weights)
    return snapshot


def _explicit_weights(directory: Path) -> tuple[str, ...]:
    """The file of weights that a config names, as transformers heeds it."""
    try:
        named = json.loads((directory / "config.json").read_bytes()).get("transformers_weights")
    except (OSError, ValueError, AttributeError):  # reading the config reports what is wrong
        return ()
    return (str(named),) if named else ()


def _fetch_weights(model: str, snapshot: HubSnapshot, weights: Sequence[str]) -> None:
    """Download the first of `weights` that the repository has.

    Raises:
        StartupError: it has none of them, or lacks a shard.
    """
    for name in weights:
        index = name if name.endswith(".index.json") else f"{name}.index.json"
        if not name.endswith(".index.json") and not _fetch(model, snapshot, [name]):
            return
        if (snapshot.directory / index).is_file():
            if lacking := _fetch(model, snapshot, _shards(snapshot.directory / index)):
                raise StartupError(
                    f"model {model!r} at commit {snapshot.commit} lacks {lacking[0]}, which its"
                    f" {index} names" + _in_the_cache(snapshot)
                )
            return
    raise StartupError(
        f"model {model!r} at commit {snapshot.commit} has no weights that can be loaded: no"
        f" {' or '.join(weights)}, whole or in shards" + _in_the_cache(snapshot)
    )


def _in_the_cache(snapshot: HubSnapshot) -> str:
    """What to add about files that are not there, if only the cache was asked."""
    offline = constants.is_offline_mode()
    return f", in {snapshot.directory}; HF_HUB_OFFLINE is set" if offline else ""


def _shards(index: Path) -> list[str]:
    try:
        shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StartupError(f"cannot read {index}: it is no index of shards ({error!r})") from error
    if not shards:
        raise StartupError(f"{index} names no shards")
    return shards


def _fetch(model: str, snapshot: HubSnapshot, names: Sequence[str]) -> list[str]:
    """Download files of the snapshot's commit; returns those that there are not."""
    wanted = [glob.escape(name) for name in names]
    # With a file that is always there: none at all is a warning of the library.
    snapshot_download(
        model, revision=snapshot.commit, allow_patterns=[*_CONFIGS, _TEMPLATES, *wanted]
    )
    return [name for name in names if not (snapshot.directory / name).is_file()]


@contextmanager
def _one_line(model: str, revision: str | None) -> Iterator[None]:
    try:
        yield
    except StartupError:
        raise
    except Exception as error:  # the hub's library raises many: of its own, of HTTP, of Xet
        raise StartupError(_refusal(model, revision, error)) from error


def _refusal(model: str, revision: str | None, error: Exception) -> str:
    """What is wrong with a model that cannot be had, and what to do about it."""
    page = f"{constants.ENDPOINT}/{model}"
    has_token = get_token() is not None
    match error:
        case GatedRepoError() if has_token:
            refusal = (
                f"model {model!r} is gated, and the token in HF_TOKEN may not read it: accept its"
                f" license at {page} with the token's account"
            )
        case GatedRepoError():
            refusal = (
                f"model {model!r} is gated: accept its license at {page}, and set HF_TOKEN to a"
                " token of your account there"
            )
        case RepositoryNotFoundError():
            private = "is closed to the token" if has_token else "is private and needs a token"
            refusal = f"the hub has no model {model!r}, or it {private} in HF_TOKEN"
        case HFValidationError():
            refusal = f"{model!r} is neither a directory here nor the id of a model on the hub"
        case RevisionNotFoundError():
            refusal = (
                f"model {model!r} has no revision {revision!r} on the hub: name one of its"
                " branches, tags or commits"
            )
        case RevisionResolutionError() | LocalEntryNotFoundError():
            refusal = _unreachable(model, revision, error)
        case HfHubHTTPError() if error.response.status_code in (401, 403) and has_token:
            refusal = f"the hub refuses the token in HF_TOKEN ({_first_line(error)})"
        case _:
            refusal = (
                f"cannot download model {model!r} from {constants.ENDPOINT}"
                f" ({type(error).__name__}: {_first_line(error)})"
            )
    return refusal


def _unreachable(model: str, revision: str | None, error: Exception) -> str:
    at = f"revision {revision!r} of model {model!r}" if revision else f"model {model!r}"
    cached = f"and the cache {constants.HF_HUB_CACHE} does not hold all of {at}"
    if constants.is_offline_mode():
        return f"HF_HUB_OFFLINE is set, {cached}: download it without HF_HUB_OFFLINE first"
    reason = _first_line(error.__cause__ or error)
    return f"the hub {constants.ENDPOINT} cannot be reached ({reason}), {cached}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
