"""How long a token can be, so that a text which cannot fit is refused before it is tokenized."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Backend

# What NFC makes of so many bytes is a byte at the least: a Hangul syllable of three letters, the
# Kelvin sign and alpha with three marks shrink to a third, and nothing to less.
_NFC_SHRINKS = 4

# What cuts a text up and drops none of it.
_CUTTERS = frozenset({"ByteLevel", "Split", "Digits"})


@dataclass(frozen=True)
class TokenBound:
    """How much text a token stands for.

    Attributes:
        longest: Bytes of the longest token.
        shrinks: How many bytes of a text that is not ASCII may become one before it is cut up.
    """

    longest: int
    shrinks: int

    def least(self, text: str) -> int:
        """Tokens that a text has at least."""
        if text.isascii():
            return -(-len(text) // self.longest)
        return -(-len(text.encode()) // (self.longest * self.shrinks))

    @classmethod
    def of(cls, backend: Backend) -> "TokenBound | None":
        """The bound for a tokenizer; None where there is none that can be told.

        There is one for a BPE over bytes whose text is not changed but for NFC: Pythia's, GPT-2's,
        Llama 3's. Elsewhere a normalizer may drop or join anything, and one unknown token stand for
        a whole text.
        """
        tokenizer: dict[str, Any] = json.loads(backend.to_str())
        model, added = tokenizer["model"], tokenizer["added_tokens"]
        shrinks = _shrinking(tokenizer.get("normalizer"))
        vocabulary = model.get("vocab")
        if (
            shrinks is None
            or model.get("type") != "BPE"
            or not isinstance(vocabulary, dict)
            or not _is_byte_level(tokenizer.get("pre_tokenizer"))
            # A byte without a token of its own is dropped.
            or not set(_alphabet()) <= vocabulary.keys()
            # These take any amount of white space in.
            or any(token["lstrip"] or token["rstrip"] for token in added)
        ):
            return None
        # A byte is a character of the vocabulary's.
        lengths = [*map(len, vocabulary), *(len(token["content"].encode()) for token in added)]
        return cls(max(lengths), shrinks)


def _shrinking(normalizer: dict[str, Any] | None) -> int | None:
    """How many bytes become one, at most; None where that is not known."""
    if normalizer is None:
        return 1
    return _NFC_SHRINKS if normalizer["type"] == "NFC" else None


def _is_byte_level(cutter: dict[str, Any] | None) -> bool:
    """Whether texts are cut into bytes, none of which is dropped."""
    if cutter is None:
        return False
    parts = cutter["pretokenizers"] if cutter["type"] == "Sequence" else [cutter]
    return (
        all(part["type"] in _CUTTERS and part.get("behavior") != "Removed" for part in parts)
        and parts[-1]["type"] == "ByteLevel"
    )


def _alphabet() -> Iterable[str]:
    """The characters that stand in a byte-level vocabulary for the bytes that UTF-8 has."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(shown)
    never = {0xC0, 0xC1, *range(0xF5, 0x100)}
    return (chr(char) for char in (*shown, *range(0x100, 0x100 + others)) if char not in never)
