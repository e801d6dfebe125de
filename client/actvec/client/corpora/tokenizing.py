"""Counts tokens without a server, as a server would."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from actvec.client.corpora.hub import fetch_tokenizer
from actvec.client.corpora.remote import one_line
from actvec.client.errors import UnsupportedInput
from actvec.client.extras import import_extra
from actvec.client.records.vectors import Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenCounter:
    """A model's tokenizer.

    Attributes:
        name: Its name or path.
        prepend_bos: Whether each text counts with a BOS token.
    """

    def __init__(self, name: str, *, prepend_bos: bool = True) -> None:
        """Load a tokenizer.

        Args:
            name: A `tokenizer.json`, a folder with one, or a model's id on the hub.
            prepend_bos: Whether each text counts with a BOS token, which servers prepend by
                default; False for a tokenizer without BOS.

        Raises:
            UnsupportedInput: there is no such tokenizer, here or on the hub.
            MissingExtra: `tokenizers` or `huggingface_hub` is not installed.
        """
        self.name = name
        self.prepend_bos = prepend_bos
        self._tokenizer = _load(name)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text in full, with BOS if `prepend_bos`.

        Raises:
            TypeError: a text contains half of a surrogate pair, and is not valid UTF-8.
        """
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding.ids) + self.prepend_bos for encoding in encodings]

    def count_documents(self, documents: Sequence[Document]) -> list[int]:
        """Count the tokens of each document; of a chat without those that its template adds.

        Raises:
            TypeError: a text contains half of a surrogate pair, and is not valid UTF-8.
        """
        counts = self.count([document.content for document in documents])
        return [
            count if document.token_ids is None else len(document.token_ids)
            for document, count in zip(documents, counts, strict=True)
        ]


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
