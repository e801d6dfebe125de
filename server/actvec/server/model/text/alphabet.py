"""The characters that a tokenizer drops: it gives wrong places of the tokens after one."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Backend

from actvec.server.model.text.token_bounds import byte_letters, is_byte_level

_BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True)
class Alphabet:
    """What a BPE makes tokens of. It skips anything else, if it has no unknown token.

    It derives a token's place from the lengths of those before it in its word, so a token after a
    skipped character gets the place of its neighbor.

    Attributes:
        vocabulary: All tokens.
        prefix: Begins each token within a word.
        suffix: Ends the last token of a word.
        added: Finds added tokens, which are not split.
    """

    vocabulary: Collection[str]
    prefix: str
    suffix: str
    added: re.Pattern[str] | None

    @classmethod
    def of(cls, backend: Backend) -> "Alphabet | None":
        """Return the alphabet of a tokenizer; None if it drops nothing."""
        tokenizer: dict[str, Any] = json.loads(backend.to_str())
        model = tokenizer["model"]
        if model.get("type") != "BPE" or model.get("unk_token") is not None:
            return None
        known = model["vocab"].keys()
        if model.get("byte_fallback") and known >= _BYTES:
            return None
        if is_byte_level(tokenizer.get("pre_tokenizer")) and known >= set(byte_letters()):
            return None
        # The longest first, as the tokenizer finds them.
        contents = sorted((one["content"] for one in tokenizer["added_tokens"]), key=len)[::-1]
        return cls(
            model["vocab"],
            model.get("continuing_subword_prefix") or "",
            model.get("end_of_word_suffix") or "",
            re.compile("|".join(map(re.escape, contents))) if contents else None,
        )

    def dropped(self, backend: Backend, text: str) -> str | None:
        """Return a character, or a byte as the tokenizer writes it, that it drops; None if none."""
        words: set[str] = set()
        for part in self.added.split(text) if self.added else [text]:
            found = backend.normalizer.normalize_str(part) if backend.normalizer else part
            cut = backend.pre_tokenizer
            words |= {word for word, _ in cut.pre_tokenize_str(found)} if cut else {found}
        for word in words:
            for place, character in enumerate(word):
                prefix = self.prefix if place else ""
                suffix = self.suffix if place == len(word) - 1 else ""
                if f"{prefix}{character}{suffix}" not in self.vocabulary:
                    return character
        return None
