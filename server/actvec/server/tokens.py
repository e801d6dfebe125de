"""From a text to the ids of one document, within the model's context."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from actvec.server.errors import RequestError, StartupError
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


def resolve_bos(asked: bool | None, *, has_bos: bool, field: str) -> bool:
    """Whether BOS comes first: what was asked for; by default, BOS if there is one.

    Args:
        asked: What was asked for; None for the default.
        has_bos: Whether the tokenizer has a BOS token.
        field: Where it was asked for, as the caller knows it.

    Raises:
        RequestError: BOS was asked for, and the tokenizer has none.
    """
    if asked and not has_bos:
        raise RequestError(
            field, "is true, and this model's tokenizer has no BOS token; leave it unset"
        )
    return has_bos if asked is None else asked


class Tokenizer:
    """The model's own tokenizer, with BOS put in front explicitly and nothing cut in silence.

    Every id that it gives is one that the model has.

    Args:
        tokenizer: The model's own; this one's from now on, without its truncation and padding.
        context: Tokens that a document may have, BOS included.
        bos: Id of the BOS token; None for a model without one.
        vocabulary: Ids that the model's embedding has, from 0.

    Attributes:
        context: As given.

    Raises:
        StartupError: BOS is outside the embedding.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        context: int,
        *,
        bos: int | None,
        vocabulary: int,
    ) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        if bos is not None and not 0 <= bos < vocabulary:
            raise StartupError(
                f"the BOS token has id {bos}, outside the model's embedding of {vocabulary} ids: "
                "the tokenizer, or bos_token_id in config.json, is another model's"
            )
        self._front = [] if bos is None else [bos]
        self._vocabulary = vocabulary
        self.context = context
        self._bound = TokenBound.of(self._backend)

    @property
    def has_bos(self) -> bool:
        """Whether there is a BOS token."""
        return bool(self._front)

    def __call__(
        self, text: str, truncation: Truncation, *, prepend_bos: bool | None = None
    ) -> TokenizedDocument:
        """Tokenize one text.

        Args:
            text: What is read; a special token written in it becomes that token.
            truncation: What happens if it is over the context.
            prepend_bos: Whether BOS comes first; None for BOS if there is one.

        Raises:
            RequestError: the text is blank, or the tokenizer knows nothing of it; or it is over the
                context with `Truncation.ERROR`; or BOS is asked for and the tokenizer has none, or
                the context holds nothing else; or a token's id is outside the embedding.
        """
        if not text or text.isspace():
            raise RequestError("text", "is empty or blank; a document needs at least one word")
        with_bos = resolve_bos(prepend_bos, has_bos=self.has_bos, field="prepend_bos")
        bos = self._front if with_bos else []
        least = len(bos) + (self._bound.least(text) if self._bound else 0)
        if least > self.context and truncation is Truncation.ERROR:
            # However its bytes are put together. Tokenizing it would take seconds.
            raise self._too_long(f"at least {least}", with_bos=with_bos)
        # The backend is called directly: the wrapper warns of lengths and may cut to them. And with
        # a batch: its `encode` of one text keeps all other threads waiting, the engine's too.
        (encoding,) = self._backend.encode_batch_fast([text], add_special_tokens=False)
        tokens = len(bos) + len(encoding)
        if not len(encoding):
            raise RequestError("text", "has no token: this model's tokenizer drops all of it")
        if tokens > self.context and truncation is Truncation.ERROR:
            raise self._too_long(f"{tokens}", with_bos=with_bos)
        # A list of them all takes a while in which no other thread runs.
        ids = encoding.ids
        if tokens > self.context:
            room = self.context - len(bos)
            if not room:
                raise RequestError("text", "has no token left: BOS takes the only one that fits")
            ids = ids[:room] if truncation is Truncation.KEEP_START else ids[-room:]
        document = TokenizedDocument(np.array(bos + ids, dtype=np.int64), tokens)
        self._check_embedded(document.ids)
        return document

    def _check_embedded(self, ids: NDArray[np.int64]) -> None:
        """Hold ids `[T]` to the embedding: one outside would fail every document of its step.

        Tokens that were added to a tokenizer and not to the model have such ids.
        """
        if (largest := int(ids.max())) >= self._vocabulary:
            raise RequestError(
                "text",
                f"has the token {self._backend.id_to_token(largest)!r} (id {largest}), which this "
                f"model does not know: its embedding has {self._vocabulary} ids; take it out of "
                "the text",
            )

    def _too_long(self, tokens: str, *, with_bos: bool) -> RequestError:
        return RequestError(
            "text",
            f"has {tokens} tokens{', BOS included' if with_bos else ''}; {self.context} fit. "
            "Shorten it, or keep one side: truncation `start` or `end` "
            "(TRUNCATION_KEEP_START, TRUNCATION_KEEP_END)",
        )
