"""Bounds on the length of tokens, to refuse a text that cannot fit before tokenizing it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Backend

# NFC turns so many bytes into at least one: a Hangul syllable of three letters, the Kelvin sign and
# alpha with three marks shrink to a third, and nothing shrinks further.
_NFC_SHRINKS = 4

# Pre-tokenizers that split a text and drop none of it.
_CUTTERS = frozenset({"ByteLevel", "Split", "Digits"})


@dataclass(frozen=True)
class TokenBound:
    """A bound on the text that one token covers.

    Attributes:
        longest: Bytes of the longest token.
        shrinks: How many bytes of a non-ASCII text normalization may turn into one.
    """

    longest: int
    shrinks: int

    def least(self, text: str) -> int:
        """Return the minimum number of tokens of a text."""
        if text.isascii():
            return -(-len(text) // self.longest)
        return -(-len(text.encode()) // (self.longest * self.shrinks))

    @classmethod
    def of(cls, backend: Backend) -> "TokenBound | None":
        """Return the bound of a tokenizer; None if it has none that can be derived.

        A BPE over bytes has one if it changes texts by NFC at most: Pythia's, GPT-2's, Llama 3's.
        In others a normalizer may drop or join anything, and one unknown token may cover a whole
        text.
        """
        tokenizer: dict[str, Any] = json.loads(backend.to_str())
        model, added = tokenizer["model"], tokenizer["added_tokens"]
        shrinks = _shrinking(tokenizer.get("normalizer"))
        vocabulary = model.get("vocab")
        if (
            shrinks is None
            or model.get("type") != "BPE"
            or not isinstance(vocabulary, dict)
            or not is_byte_level(tokenizer.get("pre_tokenizer"))
            # A byte without a token would be dropped.
            or not set(byte_letters()) <= vocabulary.keys()
            # These absorb any amount of white space.
            or any(token["lstrip"] or token["rstrip"] for token in added)
        ):
            return None
        # One character of the vocabulary stands for one byte.
        lengths = [*map(len, vocabulary), *(len(token["content"].encode()) for token in added)]
        return cls(max(lengths), shrinks)


def _shrinking(normalizer: dict[str, Any] | None) -> int | None:
    """The most bytes that normalization turns into one; None if unknown."""
    if normalizer is None:
        return 1
    return _NFC_SHRINKS if normalizer["type"] == "NFC" else None


def is_byte_level(cutter: dict[str, Any] | None) -> bool:
    """Whether texts are split into bytes, and none is dropped."""
    if cutter is None:
        return False
    parts = cutter["pretokenizers"] if cutter["type"] == "Sequence" else [cutter]
    return (
        all(part["type"] in _CUTTERS and part.get("behavior") != "Removed" for part in parts)
        and parts[-1]["type"] == "ByteLevel"
    )


def byte_letters() -> Iterable[str]:
    """Yield the characters that represent UTF-8's bytes in a byte-level vocabulary."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(shown)
    never = {0xC0, 0xC1, *range(0xF5, 0x100)}
    return (chr(char) for char in (*shown, *range(0x100, 0x100 + others)) if char not in never)
