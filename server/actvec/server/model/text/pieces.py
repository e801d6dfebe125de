"""Cuts a long text into pieces that have the same tokens apart as together.

A text of megabytes has a million tokens, and to read and free its encoding holds Python's lock for
0.1 s. Between the pieces other threads run: those of small calls and of the engine.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer as Backend

# Characters of a piece, or some more: about a millisecond of the lock.
_PIECE = 1 << 15

# Every known pattern splits a text between the letter and the space, and none looks back.
_CUT = re.compile(r"[a-z](?= [a-z])")

_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_LOWER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
_SIGNS_AND_SLASHES = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = frozenset(
    {
        # GPT-2, Llama 3, Qwen 2 and 3, Mistral NeMo, GPT-4o and GPT-OSS.
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        _WORD + r"|\p{N}{1,3}" + _SIGNS + _SPACES,
        _WORD + r"|\p{N}" + _SIGNS + _SPACES,
        f"{_LOWER}|{_UPPER}" + r"|\p{N}" + _SIGNS_AND_SLASHES + _SPACES,
        f"{_LOWER}{_ENDINGS}?|{_UPPER}{_ENDINGS}?" + r"|\p{N}{1,3}" + _SIGNS_AND_SLASHES + _SPACES,
    }
)


def can_cut(backend: Backend) -> bool:
    """Whether a tokenizer gives the pieces of a text the tokens that they have in it.

    It must be a BPE that splits a text by a known pattern before it merges bytes, as most models'
    tokenizers do.
    """
    tokenizer: dict[str, Any] = json.loads(backend.to_str())
    normalizer = tokenizer.get("normalizer")
    splitter = tokenizer.get("pre_tokenizer")
    return (
        tokenizer["model"].get("type") == "BPE"
        and not tokenizer["model"].get("dropout")
        and (normalizer is None or normalizer["type"] == "NFC")
        and splitter is not None
        and _splits(splitter.get("pretokenizers", [splitter]))
        # An added token is found before, across any pattern.
        and not any(
            re.search("[a-z] ", token["content"])
            or any(token[flag] for flag in ("lstrip", "rstrip", "single_word"))
            for token in tokenizer["added_tokens"]
        )
    )


def _splits(parts: list[dict[str, Any]]) -> bool:
    """Whether pre-tokenizers split texts by a known pattern, and change nothing but bytes."""
    words = [part for part in parts if _is_known(part)]
    others = [part["type"] for part in parts if part not in words]
    # Before the pattern, bytes would turn a space into a letter, and a line into one word.
    first = next((part for part in parts if part["type"] != "Digits"), None)
    return first in words and set(others) <= {"ByteLevel", "Digits"}


def _is_known(part: dict[str, Any]) -> bool:
    if part["type"] == "Split":
        whole = part["behavior"] == "Isolated" and not part["invert"]
        return whole and part["pattern"].get("Regex") in _PATTERNS
    return part["type"] == "ByteLevel" and bool(part.get("use_regex", True))


def pieces(text: str) -> Iterator[str]:
    """Cut a text into pieces of some 32,768 characters, where a place for a cut follows them."""
    start = 0
    while len(text) - start > _PIECE and (place := _CUT.search(text, start + _PIECE)):
        yield text[start : place.end()]
        start = place.end()
    yield text[start:]
