"""From a text to the token ids of one document, within the model's context."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from actvec.server.errors import InputError, StartupError
from actvec.server.model.stamp import Truncation
from actvec.server.model.text.alphabet import Alphabet
from actvec.server.model.text.chat import ChatTemplate
from actvec.server.model.text.pieces import can_cut, pieces
from actvec.server.model.text.token_bounds import TokenBound
from actvec.server.model.text.tokenized import Source, Spans, TokenizedDocument, after_cut

Locate = Callable[[Sequence[int], Sequence[tuple[int, int]]], Spans]
"""Maps the ids of a text, and their begins and ends in code points, to the tokens of spans."""


def resolve_bos(asked: bool | None, *, has_bos: bool) -> bool:
    """Decide whether BOS comes first; by default, if the tokenizer has one.

    Args:
        asked: The request; None for the default.
        has_bos: Whether the tokenizer has a BOS token.

    Raises:
        InputError: BOS is requested, and the tokenizer has none.
    """
    if asked and not has_bos:
        raise InputError(
            "prepend_bos", "is true, and this model's tokenizer has no BOS token; leave it unset"
        )
    return has_bos if asked is None else asked


class Tokenizer:
    """The model's own tokenizer; it prepends BOS explicitly and cuts nothing silently.

    Every id that it returns is in the model's embedding.

    Args:
        tokenizer: The model's own; this one owns it from now on, and disables its truncation and
            padding.
        context: The model's context in tokens, BOS included.
        bos: Id of the BOS token; None for a model without one.
        vocabulary: Number of ids in the model's embedding.

    Attributes:
        context: As given.
        chat_template: The tokenizer's; None without one.

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
        self._cuts = can_cut(self._backend)
        self._alphabet = Alphabet.of(self._backend)
        self.chat_template = ChatTemplate.of(tokenizer)

    @property
    def has_bos(self) -> bool:
        """Whether there is a BOS token."""
        return bool(self._front)

    def __call__(
        self,
        text: str,
        truncation: Truncation,
        *,
        prepend_bos: bool | None = None,
        locate: Locate | None = None,
    ) -> TokenizedDocument:
        """Tokenize one text.

        Args:
            text: The text; a special token written in it becomes that token.
            truncation: How to treat a text beyond the context.
            prepend_bos: Whether BOS comes first; None to do so if there is one.
            locate: Finds the tokens of its spans; None if no span is needed.

        Raises:
            InputError: the text is blank, or has no token; it exceeds the context with
                `Truncation.ERROR`; BOS is requested and the tokenizer has none, or BOS fills the
                context; a token is outside the embedding; or a span is needed, and the tokenizer
                drops a part of the text.
        """
        if not text or text.isspace():
            raise InputError("text", "is empty or blank; a document needs at least one word")
        with_bos = resolve_bos(prepend_bos, has_bos=self.has_bos)
        return self._tokenized(
            text, truncation, self._front if with_bos else [], Source.TEXT, locate
        )

    def chat(
        self, rendered: str, truncation: Truncation, *, locate: Locate | None = None
    ) -> TokenizedDocument:
        """Tokenize a rendered chat; its template decides about BOS.

        Raises:
            InputError: as for a text.
        """
        return self._tokenized(rendered, truncation, [], Source.MESSAGES, locate)

    def ids(
        self, ids: NDArray[np.int64], truncation: Truncation, spans: Spans | None = None
    ) -> TokenizedDocument:
        """Check a document of token ids, and cut it to the context.

        Args:
            ids: int64 `[T]`, one or more.
            truncation: How to treat ids beyond the context.
            spans: The tokens of its spans.

        Raises:
            InputError: they exceed the context with `Truncation.ERROR`, or one is outside the
                embedding.
        """
        unknown = np.flatnonzero((ids < 0) | (ids >= self._vocabulary))
        if len(unknown):
            raise InputError(
                "token_ids",
                f"have id {ids[unknown[0]]} at place {unknown[0]}; this model knows ids 0 to "
                f"{self._vocabulary - 1}",
            )
        return self._document(ids, truncation, Source.TOKEN_IDS, spans or {}, bos=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids to text, including special tokens."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=False)
        return text

    def spelled(self, text: str) -> str:
        """Encode and decode a text, which shows how its tokens spell it."""
        (encoding,) = self._backend.encode_batch_fast([text], add_special_tokens=False)
        return self.decode(encoding.ids)

    def normalized(self, text: str) -> str:
        """Normalize a text as the tokenizer does."""
        normalizer = self._backend.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def _tokenized(
        self,
        text: str,
        truncation: Truncation,
        bos: list[int],
        source: Source,
        locate: Locate | None,
    ) -> TokenizedDocument:
        least = len(bos) + (self._bound.least(text) if self._bound else 0)
        if least > self.context and truncation is Truncation.ERROR:
            # True for any split of its bytes, and tokenizing the text would take seconds.
            raise self._too_long(source, f"at least {least}", with_bos=bool(bos))
        # With a batch always: `encode` of a single text blocks all other threads, the engine's too.
        # Only the slower call locates tokens in the text.
        if locate is None:
            ids = self._encoded(text)
        else:
            self._check_places(text, source)
            (encoding,) = self._backend.encode_batch([text], add_special_tokens=False)
            ids = np.array(encoding.ids, dtype=np.int64)
        if not len(ids):
            raise InputError(source.value, "has no token: this model's tokenizer drops all of it")
        if len(bos) + len(ids) > self.context and truncation is Truncation.ERROR:
            raise self._too_long(source, f"{len(bos) + len(ids)}", with_bos=bool(bos))
        spans = {}
        if locate is not None:
            found = locate(encoding.ids, encoding.offsets)
            spans = {name: tokens + len(bos) for name, tokens in found.items()}
        whole = np.concatenate([np.array(bos, dtype=np.int64), ids])
        return self._document(whole, truncation, source, spans, bos=bool(bos))

    def _check_places(self, text: str, source: Source) -> None:
        """Check that the tokenizer knows where each token is in a text."""
        dropped = self._alphabet and self._alphabet.dropped(self._backend, text)
        if dropped:
            raise InputError(
                source.value,
                f"has no spans with this model's tokenizer: it drops {dropped!r}, and gives wrong "
                "places of the tokens after it; remove that, or send token ids",
            )

    def _encoded(self, text: str) -> NDArray[np.int64]:
        """All ids of a text, int64 `[T]`.

        It calls the backend directly: the wrapper warns of lengths and may truncate.
        """
        found = []
        for piece in pieces(text) if self._cuts else [text]:
            (encoding,) = self._backend.encode_batch_fast([piece], add_special_tokens=False)
            found.append(np.array(encoding.ids, dtype=np.int64))
        return np.concatenate(found)

    def _document(
        self,
        ids: NDArray[np.int64],
        truncation: Truncation,
        source: Source,
        spans: Spans,
        *,
        bos: bool,
    ) -> TokenizedDocument:
        """Cut a document to the context; a BOS at its front, from any source, stays.

        Args:
            ids: All of its ids, int64 `[T]`.
            truncation: How to treat a document beyond the context.
            source: The kind of its content.
            spans: The tokens of its spans.
            bos: Whether BOS was prepended here.
        """
        tokens, starts = len(ids), [int(ids[0])] == self._front
        if tokens > self.context:
            if truncation is Truncation.ERROR:
                raise self._too_long(source, f"{tokens}", with_bos=bos)
            front = 1 if starts else 0
            room = self.context - front
            if not room:
                raise InputError(
                    source.value, "has no token left: BOS takes the only one that fits"
                )
            start = front if truncation is Truncation.KEEP_START else tokens - room
            kept = np.concatenate([np.arange(front), np.arange(start, start + room)])
            ids, spans = ids[kept], after_cut(spans, kept)
        self._check_embedded(ids, source)
        return TokenizedDocument(ids, tokens, starts, spans, source)

    def _check_embedded(self, ids: NDArray[np.int64], source: Source) -> None:
        """Check ids `[T]` against the embedding: one outside would fail every document of its step.

        Tokens added to a tokenizer but not to the model have such ids.
        """
        if (largest := int(ids.max())) >= self._vocabulary:
            raise InputError(
                source.value,
                f"has the token {self._backend.id_to_token(largest)!r} (id {largest}), which this "
                f"model does not know: its embedding has {self._vocabulary} ids; remove it from "
                "the text",
            )

    def _too_long(self, source: Source, tokens: str, *, with_bos: bool) -> InputError:
        return InputError(
            source.value,
            f"has {tokens} tokens{', BOS included' if with_bos else ''}; {self.context} fit. "
            "Shorten it, or have its start or its end kept: see truncation",
        )
