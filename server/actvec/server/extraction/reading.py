"""From a document's content (a text, a chat or ids) to its tokens and those of its spans."""

from collections.abc import Callable, Sequence

import numpy as np

from actvec.server.errors import InputError, TextTooLargeError
from actvec.server.extraction.contents import (
    CHAT_SPANS,
    ChatContent,
    Content,
    IdsContent,
    TextContent,
)
from actvec.server.extraction.offsets import Tokens, covered, trimmed
from actvec.server.extraction.settings import Settings
from actvec.server.model.text.chat import Rendered, inseparable
from actvec.server.model.text.tokenized import Spans, TokenizedDocument
from actvec.server.model.text.tokenizer import Tokenizer

Read = TokenizedDocument | InputError
"""The tokens of a document, or the reason why it has none."""


_SENTENCE_PIECE_SPACE = "\u2581"


class Reader:
    """Reads documents with a model's tokenizer and chat template.

    Args:
        tokenizer: The tokenizer.
        text_bytes: Limit on a text's bytes of UTF-8.
    """

    def __init__(self, tokenizer: Tokenizer, text_bytes: int) -> None:
        self._tokenizer = tokenizer
        self._text_bytes = text_bytes

    def __call__(self, content: Content | InputError, settings: Settings) -> Read:
        """Return the tokens of a document, and of its spans if a pool needs them, or its error."""
        if isinstance(content, InputError):
            return content
        try:
            if isinstance(content, IdsContent):
                return self._read_ids(content, settings)
            field = "text" if isinstance(content, TextContent) else "messages"
            limit = self._text_bytes
            if content.characters() > limit or content.utf8_bytes() > limit:
                raise TextTooLargeError(
                    field, f"is larger than the limit of {limit} bytes; split it"
                )
            content.check()
            if isinstance(content, TextContent):
                return self._read_text(content, settings)
            return self._read_chat(content, settings)
        except InputError as error:
            # Without its frames, which hold the text and all its tokens.
            return error.with_traceback(None)

    def _read_text(self, content: TextContent, settings: Settings) -> TokenizedDocument:
        def locate(_: Sequence[int], offsets: Sequence[tuple[int, int]]) -> Spans:
            found = trimmed(content.text, offsets)
            return _by_name(content, lambda parts: covered(found, parts))

        return self._tokenizer(
            content.text,
            settings.truncation,
            prepend_bos=settings.prepend_bos,
            locate=locate if content.spans and settings.needs_spans else None,
        )

    def _read_ids(self, content: IdsContent, settings: Settings) -> TokenizedDocument:
        content.check()

        def tokens(parts: list[tuple[int, int]]) -> Tokens:
            return np.unique(np.concatenate([np.arange(*part) for part in parts]))

        spans = _by_name(content, tokens) if settings.needs_spans else {}
        return self._tokenizer.ids(content.ids, settings.truncation, spans)

    def _read_chat(self, content: ChatContent, settings: Settings) -> TokenizedDocument:
        template = self._tokenizer.chat_template
        if template is None:
            raise InputError(
                "messages",
                "need a chat template, and this model has none; send a text, or token ids",
            )
        wanted = settings.needs_spans
        contents = template.render(content.messages, settings.chat, located=wanted)

        def locate(ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> Spans:
            return self._spans_by_role(content, contents, ids, offsets)

        return self._tokenizer.chat(
            contents.text, settings.truncation, locate=locate if wanted else None
        )

    def _spans_by_role(
        self,
        content: ChatContent,
        rendered: Rendered,
        ids: Sequence[int],
        offsets: Sequence[tuple[int, int]],
    ) -> Spans:
        """Find the tokens of each role's messages, of the last answer, and of everything before it.

        Raises:
            InputError: the tokens of a message do not spell its content.
        """
        found = trimmed(rendered.text, offsets)
        parts: dict[str, list[tuple[int, int]]] = {}
        for message, part in zip(content.messages, rendered.contents, strict=True):
            said = self._tokenizer.decode([ids[token] for token in covered(found, [part])])
            if not self._says(said, message.content):
                raise inseparable("its tokens are not those of the messages")
            parts.setdefault(message.role, []).append(part)
        spans = {role: covered(found, each) for role, each in parts.items() if role in CHAT_SPANS}
        before = len(ids)
        if answers := parts.get("assistant"):
            spans["response"] = covered(found, answers[-1:])
            # The tokens that end before the answer, which may be empty.
            before = int((found[:, 1] <= answers[-1][0]).sum())
        spans["prompt"] = np.arange(before)
        return spans

    def _says(self, said: str, content: str) -> bool:
        """Whether decoded tokens hold a content, as the tokenizer spells it.

        The normalizers of Llama 2 and Gemma write a space as another character, and their decoders
        write it back: so both sides are normalized. A content with an unknown character is spelled
        by its own tokens.
        """
        normalized = self._tokenizer.normalized
        if _bare(normalized(content)) in _bare(normalized(said)):
            return True
        spelled = _bare(self._tokenizer.spelled(content))
        return bool(spelled) and spelled in _bare(said)


def _bare(text: str) -> str:
    """Remove white space, which templates and tokenizers trim, and SentencePiece's sign for it."""
    return "".join(text.replace(_SENTENCE_PIECE_SPACE, "").split())


def _by_name(
    content: TextContent | IdsContent, tokens: Callable[[list[tuple[int, int]]], Tokens]
) -> Spans:
    """Find the tokens of each span; spans of the same name add up to one."""
    parts: dict[str, list[tuple[int, int]]] = {}
    for name, start, end in content.spans:
        parts.setdefault(name, []).append((start, end))
    return {name: tokens(each) for name, each in parts.items()}
