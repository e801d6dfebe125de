"""A model's chat template: renders messages to the text to tokenize, and locates each in it."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import _compile_jinja_template

from actvec.server.errors import InputError, first_line

# The date for templates that ask for today's, so that vectors do not change from day to day. It is
# the default in Llama 3's template.
_DATE = date(2024, 7, 26)

_KNOWN_ROLES = frozenset({"system", "user", "assistant"})
_KWARGS = "chat_template_kwargs"
_KWARGS_BYTES = 4096
# The arguments that the server passes itself.
_OURS = frozenset({"messages", "add_generation_prompt", "strftime_now", "raise_exception"})

# Replaces the content of a message in a rendering: from a private use area, so in no text.
_MARK = "\ue0a7{}\ue0a8"

# How templates trim a content: Llama's all white space, Qwen's line breaks.
_TRIMS: tuple[Callable[[str], str], ...] = (
    str,
    str.strip,
    str.lstrip,
    str.rstrip,
    lambda content: content.strip("\n"),
    lambda content: content.lstrip("\n"),
    lambda content: content.rstrip("\n"),
)


class Message(NamedTuple):
    """One message of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class ChatSettings:
    """How to render chats.

    Attributes:
        add_generation_prompt: Whether to end with the beginning of an answer.
        kwargs: Further arguments of the template, as JSON with sorted keys; empty for none.
    """

    add_generation_prompt: bool = False
    kwargs: str = ""


@dataclass(frozen=True)
class Rendered:
    """A chat as a text.

    Attributes:
        text: The text.
        contents: Begin and end of each message's content in it, in code points; empty if not
            requested.
    """

    text: str
    contents: list[tuple[int, int]]


class ChatTemplate:
    """The chat template of a model's tokenizer.

    Attributes:
        sha256: SHA-256 of the template, in hexadecimal.
        date: The date passed as today's, as YYYY-MM-DD; empty if the template does not ask.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, Any]) -> None:
        self.sha256 = hashlib.sha256(source.encode()).hexdigest()
        self.date = _DATE.isoformat() if "strftime_now" in source else ""
        self._source = source
        self._special_tokens = dict(special_tokens)
        # Not through `apply_chat_template`, which turns every function argument into a string,
        # including the one for the date.
        self._template = _compile_jinja_template(source)
        self._in_parts = False
        self._in_parts = self._needs_parts()

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> "ChatTemplate | None":
        """Return the template of a tokenizer; None if it has none, or an invalid one."""
        try:
            return cls(tokenizer.get_chat_template(), tokenizer.special_tokens_map)
        except Exception:  # jinja2's own, and transformers' for a missing one
            return None

    def render(
        self, messages: Sequence[Message], settings: ChatSettings, *, located: bool
    ) -> Rendered:
        """Render a chat as a text.

        Args:
            messages: The chat.
            settings: How to render it.
            located: Whether to locate each message's content.

        Raises:
            InputError: the template refuses the messages, or does not know a role; or `located` is
                set and the contents cannot be located.
        """
        for number, message in enumerate(messages):
            self._check_role(f"messages[{number}].role", message.role)
        text = self._rendered(messages, settings)
        return Rendered(text, self._locate(messages, settings, text) if located else [])

    def _check_role(self, part: str, role: str) -> None:
        # Some templates silently skip unknown roles.
        if role not in _KNOWN_ROLES and not (role and role in self._source):
            raise InputError(
                part,
                f"is {role[:80]!r}, which this model's chat template does not know; use system, "
                "user or assistant",
            )

    def _needs_parts(self) -> bool:
        """Whether the template renders a content only as a list of parts, and skips a string.

        Templates of models of images and text do, LLaVA's for one: without this, a chat would lose
        its words without an error.
        """
        said = [Message("user", _MARK.format(0))]
        if _MARK.format(0) in self._tried(said):
            return False
        self._in_parts = True
        return _MARK.format(0) in self._tried(said)

    def _tried(self, messages: Sequence[Message]) -> str:
        """A rendering; empty if the template refuses the messages."""
        try:
            return self._rendered(messages, ChatSettings())
        except InputError:
            return ""

    def _message(self, message: Message) -> dict[str, Any]:
        """A message as the template takes it."""
        if not self._in_parts:
            return message._asdict()
        return {"role": message.role, "content": [{"type": "text", "text": message.content}]}

    def _rendered(self, messages: Sequence[Message], settings: ChatSettings) -> str:
        given = json.loads(settings.kwargs) if settings.kwargs else {}
        try:
            text: str = self._template.render(
                **(self._special_tokens | given),
                messages=[self._message(message) for message in messages],
                add_generation_prompt=settings.add_generation_prompt,
                strftime_now=_DATE.strftime,
            )
        except Exception as error:  # of jinja2, and of anything a template does
            raise InputError(
                "messages", f"are refused by this model's chat template: {first_line(error)}"
            ) from error
        return text

    def _locate(
        self, messages: Sequence[Message], settings: ChatSettings, text: str
    ) -> list[tuple[int, int]]:
        """Locate the content of each message in the rendering.

        A rendering of the same chat with marks in place of the contents shows the text around them.
        With the contents in between, each whole or trimmed, it must equal the rendering exactly.
        """
        marks = [_MARK.format(number) for number in range(len(messages))]
        marked = self._rendered(
            [Message(role, mark) for (role, _), mark in zip(messages, marks, strict=True)],
            settings,
        )
        if any(marked.count(mark) != 1 for mark in marks):
            raise inseparable("a message's content is not rendered once")
        order = sorted(range(len(messages)), key=lambda number: marked.index(marks[number]))
        rest = marked
        # Each place that the contents so far may end at, and the last of them there. Templates trim
        # some roles and not others, so that several trims may fit until what follows is read.
        places: dict[int, _Found | None] = {0: None}
        for number in order:
            before, _, rest = rest.partition(marks[number])
            following: dict[int, _Found | None] = {}
            for at, found in places.items():
                start = at + len(before)
                if not text.startswith(before, at):
                    continue
                for content in dict.fromkeys(trim(messages[number].content) for trim in _TRIMS):
                    if text.startswith(content, start):
                        end = start + len(content)
                        following.setdefault(end, _Found(number, start, end, found))
            places = following
        last = places.get(len(text) - len(rest))
        if last is None or not text.endswith(rest):
            raise inseparable("it changes what messages say")
        located = {}
        while last is not None:
            located[last.number] = last.start, last.end
            last = last.previous
        return [located[number] for number in range(len(messages))]


class _Found(NamedTuple):
    """A content that was located, and the one before it in the rendering."""

    number: int
    start: int
    end: int
    previous: "_Found | None"


def inseparable(why: str) -> InputError:
    """Return the error for a chat whose messages cannot be located in its rendering."""
    return InputError(
        "messages",
        f"have no spans by role with this model's chat template: {why}. Render the chat yourself, "
        "and send it as a text with spans, or as token ids",
    )


def parse_kwargs(written: str) -> str:
    """Parse arguments of a chat template; return JSON with sorted keys, empty for none.

    Raises:
        InputError: they are not a JSON object, or contain an argument that the server passes
            itself.
    """
    if not written:
        return ""
    if len(written.encode()) > _KWARGS_BYTES:
        raise InputError(_KWARGS, f"is longer than {_KWARGS_BYTES} bytes")
    try:
        given = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise InputError(_KWARGS, f"is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise InputError(_KWARGS, 'is not a JSON object, such as {"enable_thinking": false}')
    if taken := sorted(_OURS & given.keys()):
        raise InputError(_KWARGS, f"names {', '.join(taken)}, which the server gives itself")
    return json.dumps(given, sort_keys=True) if given else ""
