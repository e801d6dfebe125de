"""Loads a model's tokenizer and its BOS token, and checks the tokenizer against its file."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

from actvec.server.errors import StartupError

log = logging.getLogger(__name__)

_FILE = "tokenizer.json"
_NONE = (
    f"there is no {_FILE}, nor anything that transformers makes one of; add the {_FILE} of the "
    "model that this one was made from"
)

# Texts on which tokenizers disagree: white space, digits, scripts, composed and decomposed letters.
_PROBES = (
    "The quick brown fox doesn't jump.",
    " a leading space",
    "one\ntwo\n\nthree\r\n\tfour",
    "In 2024, 1234567.89 of 007",
    "def f(x_y): return x_y != 0x1F",
    "潮は一日に二度戻る。",
    "🧭👩\u200d🚀 and 🇳🇴",
    "caf\u00e9",
    "cafe\u0301",
    "two  spaces   and a trailing one ",
)
# Number of special tokens to compare: a tokenizer may have thousands of interchangeable ones.
_SPECIALS = 32


def load_tokenizer(source: str, model: str) -> PreTrainedTokenizerFast:
    """Load a model's own tokenizer; warn if the model's `tokenizer.json` gives other ids.

    Args:
        source: The model's directory.
        model: The model's name for messages.

    Raises:
        StartupError: there is none, it is damaged, or it exists only in Python without a fast form.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # of any class: tokenizers' own, and those of transformers' parsing
        raise StartupError(
            f"cannot read the tokenizer of model {model!r}: {_why(error)}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise StartupError(
            f"model {model!r} has no fast tokenizer: {type(tokenizer).__name__} is written in "
            "Python, and has no tokenizer.json; serve a model directory that has one"
        )
    # Without a file, transformers silently makes an empty one for some classes (GPTNeoX's, GPT-2's,
    # Gemma's).
    vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    if vocabulary.keys() <= set(tokenizer.all_special_tokens):
        raise StartupError(f"cannot read the tokenizer of model {model!r}: {_NONE}")
    _compare_with_file(tokenizer, source, model)
    return tokenizer


def find_bos(tokenizer: PreTrainedTokenizerFast, source: str) -> int | None:
    """Return a model's BOS token: the tokenizer's, or else the id in `config.json`.

    A tokenizer may declare that it has none: Qwen's does, by `"bos_token": null` and by its class.
    Then the id in `config.json` is ignored. If `config.json` has no id, the default of
    transformers' config class does not count.

    Args:
        tokenizer: The model's tokenizer.
        source: The model's directory.

    Returns:
        The id, which may lie outside the model's embedding; None for a model without BOS.
    """
    bos: int | None = tokenizer.bos_token_id
    if bos is not None or "bos_token" in tokenizer.init_kwargs:
        return bos
    config: dict[str, Any]
    config, _ = PreTrainedConfig.get_config_dict(source)
    for part in (config, config.get("text_config") or {}):
        if isinstance(named := part.get("bos_token_id"), int):
            return named
    return None


def _compare_with_file(tokenizer: PreTrainedTokenizerFast, source: str, model: str) -> None:
    """Warn about the first text for which a model's `tokenizer.json` gives other ids.

    For some classes of tokenizers (Qwen2's, Llama's) transformers uses the file's vocabulary, but
    splitting rules of its own.
    """
    path = Path(source) / _FILE
    if not path.exists():
        return
    used = f"transformers' {type(tokenizer).__name__}"
    try:
        file = Backend.from_file(str(path))
    except Exception as error:  # tokenizers raises this class itself
        log.warning(
            "%s of model %r cannot be read by itself (%s); %s is used", _FILE, model, error, used
        )
        return
    file.no_truncation()
    for text in _probes(tokenizer, file):
        ours, theirs = (
            backend.encode(text, add_special_tokens=False).ids
            for backend in (tokenizer.backend_tokenizer, file)
        )
        if ours != theirs:
            log.warning(
                "%s of model %r gives other ids than %s, which is used, as transformers does: "
                "%a is %s, and %s by the file",
                *(_FILE, model, used, text, ours, theirs),
            )
            return


def _probes(tokenizer: PreTrainedTokenizerFast, file: Backend) -> Iterator[str]:
    """Yield texts to compare: the usual ones, then the special tokens of both, inside a text."""
    yield from _PROBES
    added = (token.content for token in file.get_added_tokens_decoder().values() if token.special)
    specials = dict.fromkeys([*tokenizer.all_special_tokens, *added])
    for token in list(specials)[:_SPECIALS]:
        yield f"before {token} after"


def _why(error: Exception) -> str:
    """Describe a tokenizer's error in one line."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    if first.startswith("Couldn't instantiate the backend tokenizer"):
        return _NONE
    return first if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {first}"
