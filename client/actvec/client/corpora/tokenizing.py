"""Counts tokens as a server does, without one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from actvec.client.corpora.hub import fetch_tokenizer
from actvec.client.corpora.sources import one_line
from actvec.client.errors import UnsupportedInput
from actvec.client.extras import import_extra

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenCounter:
    """A model's tokenizer.

    Attributes:
        name: Where it was loaded from.
        prepend_bos: Whether a BOS token is counted with each text.
    """

    def __init__(self, name: str, *, prepend_bos: bool = True) -> None:
        """Load a tokenizer.

        Args:
            name: A `tokenizer.json`, a folder with one, or a model's id on the hub.
            prepend_bos: Whether a BOS token is counted with each text, as servers put one in front
                unless they are told otherwise; give False for a tokenizer without BOS.

        Raises:
            UnsupportedInput: there is no tokenizer of that name, here or on the hub.
            MissingExtra: `tokenizers` or `huggingface_hub` is not installed.
        """
        self.name = name
        self.prepend_bos = prepend_bos
        self._tokenizer = _load(name)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, all of it, BOS included where it is counted.

        Raises:
            TypeError: a text holds half of a surrogate pair, and so has no UTF-8.
        """
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding.ids) + self.prepend_bos for encoding in encodings]


def _load(name: str) -> "Tokenizer":
    kind: type[Tokenizer] = import_extra("tokenizers", "data").Tokenizer
    path = Path(name)
    if path.is_dir():
        path = path / "tokenizer.json"
    elif not path.is_file() and path.suffix != ".json":
        path = fetch_tokenizer(name)
    try:
        return kind.from_str(path.read_text("utf-8"))
    except Exception as error:  # tokenizers raises this class itself
        raise UnsupportedInput(f"cannot load the tokenizer {path}: {one_line(error)}") from error
