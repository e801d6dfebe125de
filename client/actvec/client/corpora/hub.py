"""Tokenizers from the model hub: only a repository's `tokenizer.json`, at one commit."""

from pathlib import Path

from actvec.client.errors import UnsupportedInput
from actvec.client.extras import import_extra

_FILE = "tokenizer.json"


def fetch_tokenizer(model: str) -> Path:
    """Download a model's `tokenizer.json` from the hub, or find it in the hub's cache.

    Resolves the default branch to a commit once. If the hub cannot be reached, the cache replaces
    it; with `HF_HUB_OFFLINE` it is not asked. `HF_TOKEN` opens gated models.

    Args:
        model: The model's id, for example `EleutherAI/pythia-12b`.

    Raises:
        UnsupportedInput: the model does not exist, has no `tokenizer.json` or is gated, or the hub
            cannot be reached and the cache lacks the file. One line.
        MissingExtra: `huggingface_hub` is not installed.

    Examples:
        >>> fetch_tokenizer("EleutherAI/pythia-12b").name  # doctest: +SKIP
        'tokenizer.json'
    """
    hub = import_extra("huggingface_hub", "data")
    offline = import_extra("huggingface_hub.constants", "data").is_offline_mode()
    try:
        commit = hub.HfApi().resolve_revision(model, local_files_only=offline)
        return Path(hub.hf_hub_download(model, _FILE, revision=commit))
    except Exception as error:  # the hub's library raises many: its own, of HTTP, of Xet
        raise UnsupportedInput(
            f"cannot load a tokenizer of {model!r} from the hub: {_reason(model, error)}"
        ) from error


def _reason(model: str, error: Exception) -> str:
    """The reason, and the advice."""
    errors = import_extra("huggingface_hub.errors", "data")
    constants = import_extra("huggingface_hub.constants", "data")
    endpoint, cache = constants.ENDPOINT, constants.HF_HUB_CACHE
    has_token = import_extra("huggingface_hub", "data").get_token() is not None
    match error:
        case errors.GatedRepoError():
            account = "the account of the token in" if has_token else "your account, and set"
            reason = (
                f"it is gated: accept its license at {endpoint}/{model} with {account} HF_TOKEN"
            )
        case errors.RepositoryNotFoundError():
            private = "is closed to the token" if has_token else "is private and needs a token"
            reason = f"there is no such model, or it {private} in HF_TOKEN"
        case errors.RemoteEntryNotFoundError():
            reason = f"it has no {_FILE}; give a file or a folder that has one"
        case errors.HFValidationError():
            reason = "this is neither a file or folder here nor the id of a model"
        case errors.RevisionResolutionError() | errors.LocalEntryNotFoundError():
            if constants.is_offline_mode():
                reason = f"HF_HUB_OFFLINE is set, and the cache {cache} does not hold it"
            else:
                cause = _first_line(error.__cause__ or error)
                reason = f"{endpoint} cannot be reached ({cause}), and the cache {cache} lacks it"
        case _:
            reason = f"{type(error).__name__}: {_first_line(error)}"
    return reason


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
