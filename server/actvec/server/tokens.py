"""From a text to the ids of one document, within the model's context."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from actvec.server.errors import RequestError
from actvec.server.token_bounds import TokenBound


class Truncation(Enum):
    """What happens to a document of more tokens than the context."""

    ERROR = "error"
    KEEP_START = "start"
    KEEP_END = "end"


@dataclass(frozen=True)
class TokenizedDocument:
    """The ids of one document.

    Attributes:
        ids: int64 `[T]`, BOS included where there is one.
        tokens: Tokens of the whole text, BOS included: more than T where it was truncated.
    """

    ids: NDArray[np.int64]
    tokens: int

    @property
    def truncated(self) -> bool:
        """Whether the text was cut to the context."""
        return len(self.ids) < self.tokens


class Tokenizer:
    """The model's own tokenizer, with BOS put in front explicitly and nothing cut in silence."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, context: int) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._bos = tokenizer.bos_token_id
        self.context = context
        self._bound = TokenBound.of(self._backend)

    def __call__(
        self, text: str, truncation: Truncation, *, prepend_bos: bool
    ) -> TokenizedDocument:
        """Tokenize one text.

        Raises:
            RequestError: the text is blank, or the tokenizer knows nothing of it; or it is over the
                context with `Truncation.ERROR`; or BOS is asked for and the tokenizer has none, or
                the context holds nothing else.
        """
        if not text or text.isspace():
            raise RequestError("text", "is empty or blank; a document needs at least one word")
        if prepend_bos and self._bos is None:
            raise RequestError(
                "settings.prepend_bos",
                "this model's tokenizer has no BOS token; set prepend_bos to false",
            )
        bos = [self._bos] if prepend_bos else []
        least = len(bos) + (self._bound.least(text) if self._bound else 0)
        if least > self.context and truncation is Truncation.ERROR:
            # However its bytes are put together. Tokenizing it would take seconds.
            raise self._too_long(f"at least {least}")
        # The backend is called directly: the wrapper warns of lengths and may cut to them. And with
        # a batch: its `encode` of one text keeps all other threads waiting, the engine's too.
        (encoding,) = self._backend.encode_batch_fast([text], add_special_tokens=False)
        tokens = len(bos) + len(encoding)
        if not len(encoding):
            raise RequestError("text", "has no token: this model's tokenizer drops all of it")
        if tokens > self.context and truncation is Truncation.ERROR:
            raise self._too_long(f"{tokens}")
        # A list of them all takes a while in which no other thread runs.
        ids = encoding.ids
        if tokens > self.context:
            room = self.context - len(bos)
            if not room:
                raise RequestError("text", "has no token left: BOS takes the only one that fits")
            ids = ids[:room] if truncation is Truncation.KEEP_START else ids[-room:]
        return TokenizedDocument(np.array(bos + ids, dtype=np.int64), tokens)

    def _too_long(self, tokens: str) -> RequestError:
        return RequestError(
            "text",
            f"has {tokens} tokens, BOS included; {self.context} fit. Shorten it, or keep one side: "
            "truncation `start` or `end` (TRUNCATION_KEEP_START, TRUNCATION_KEEP_END)",
        )
