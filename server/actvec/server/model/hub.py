"""The model hub: from a model's id and revision to a commit and a local directory.

The revision is resolved once. Everything is then read from one directory of one commit, so no later
request is needed and no two commits can mix. `huggingface_hub` reads its variables (`HF_HOME`,
`HF_TOKEN`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`) at its import.
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

from actvec.server.errors import StartupError, first_line

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """The files of a kind of repository or directory.

    Attributes:
        kind: Its name, for messages.
        config: The file that every one has.
        weights: Names of files of weights, in the order in which transformers and peft look for
            them; each whole, or in shards listed by an index.
    """

    kind: str
    config: str
    weights: tuple[str, ...]


MODEL = Files(
    "a model in transformers' layout",
    "config.json",
    ("model.safetensors", "pytorch_model.bin"),
)
ADAPTER = Files(
    "an adapter in peft's layout",
    "adapter_config.json",
    ("adapter_model.safetensors", "adapter_model.bin"),
)

# Every loadable repository has one of them.
_CONFIGS = [MODEL.config, ADAPTER.config]

# Config, tokenizer, chat template and the indexes of shards: small files in a repository's root.
_FACTS = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
_NO_FACTS = ["*/*", "trainer_state.json"]
_TEMPLATES = "additional_chat_templates/*.jinja"


@dataclass(frozen=True)
class HubSnapshot:
    """A repository's files on this machine, all from one commit.

    Attributes:
        commit: 40 hexadecimal digits.
        directory: A directory in the hub's cache, which transformers loads like any other.
    """

    commit: str
    directory: Path


def is_hub_id(name: str) -> bool:
    """Whether a name may be a repository's, and not a path."""
    return not name.startswith((".", "/", "~")) and name.count("/") <= 1


def hub_snapshot(model: str, revision: str | None = None, *, files: Files = MODEL) -> HubSnapshot:
    """Download the files of a model or an adapter, or find them in the cache.

    Of several formats of weights, it downloads the first of `files.weights` that the repository
    has, and nothing else: no other format, no optimizer, no subfolder but chat templates. It asks
    the hub for the commit of `revision`, unless that is a commit already or `HF_HUB_OFFLINE` is
    set. If the hub cannot be reached, the cache replaces it.

    Args:
        model: The repository's id, for example `EleutherAI/pythia-12b`.
        revision: Branch, tag or commit; None for the default branch.
        files: The files of a model, or of an adapter.

    Raises:
        StartupError: the model or revision does not exist or is gated, the hub cannot be reached
            and the cache lacks it, or the repository has no such weights. One line.

    Examples:
        >>> snapshot = hub_snapshot("EleutherAI/pythia-70m", "step3000")  # doctest: +SKIP
        >>> AutoConfig.from_pretrained(snapshot.directory)  # doctest: +SKIP
    """
    with _one_line(model, revision):
        commit = HfApi().resolve_revision(
            model, revision=revision, local_files_only=constants.is_offline_mode()
        )
        # Fetches the list of the commit's files, once, and caches it for the rest.
        directory = Path(
            snapshot_download(
                model, revision=commit, allow_patterns=_FACTS, ignore_patterns=_NO_FACTS
            )
        )
        snapshot = HubSnapshot(commit.resolved, directory)
        log.info("model %s is commit %s, in %s", model, snapshot.commit, directory)
        if not (directory / files.config).is_file():
            refuse_adapter(model, directory)
            raise StartupError(
                f"{model!r} at commit {snapshot.commit} has no {files.config}: it is not"
                f" {files.kind}"
            )
        named = _explicit_weights(directory) if files == MODEL else ()
        _fetch_weights(model, snapshot, named or files.weights)
    return snapshot


def refuse_adapter(model: str, directory: Path) -> None:
    """Refuse a directory that holds an adapter and no model.

    Raises:
        StartupError: it does; the message names the adapter's base.
    """
    try:
        config = json.loads((directory / ADAPTER.config).read_bytes())
        base = config.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):  # not readable as an adapter
        return
    raise StartupError(
        f"{model!r} is an adapter for {base or 'a model'}, without a model's weights",
        setting="adapter",
    )


def _explicit_weights(directory: Path) -> tuple[str, ...]:
    """The file of weights that a config names, which transformers follows."""
    try:
        named = json.loads((directory / "config.json").read_bytes()).get("transformers_weights")
    except (OSError, ValueError, AttributeError):  # reading the config will report the error
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
    """A note on missing files, if only the cache was asked."""
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
    """Download files of the snapshot's commit; return the missing ones."""
    wanted = [glob.escape(name) for name in names]
    # With a file that always exists: for none at all the library warns.
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
    except Exception as error:  # the hub's library raises many: its own, of HTTP, of Xet
        raise StartupError(_refusal(model, revision, error)) from error


def _refusal(model: str, revision: str | None, error: Exception) -> str:
    """Describe why a model cannot be downloaded, and what to do."""
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
            refusal = f"the hub refuses the token in HF_TOKEN ({first_line(error)})"
        case _:
            refusal = (
                f"cannot download model {model!r} from {constants.ENDPOINT}"
                f" ({type(error).__name__}: {first_line(error)})"
            )
    return refusal


def _unreachable(model: str, revision: str | None, error: Exception) -> str:
    at = f"revision {revision!r} of model {model!r}" if revision else f"model {model!r}"
    cached = f"and the cache {constants.HF_HUB_CACHE} does not hold all of {at}"
    if constants.is_offline_mode():
        return f"HF_HUB_OFFLINE is set, {cached}: download it without HF_HUB_OFFLINE first"
    reason = first_line(error.__cause__ or error)
    return f"the hub {constants.ENDPOINT} cannot be reached ({reason}), {cached}"
