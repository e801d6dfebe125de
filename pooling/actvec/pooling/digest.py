"""Digests of documents, by which a job that resumes recognizes its corpus.

The contract defines them, so servers and clients in any language agree.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence


def text_digest(text: str, spans: Iterable[tuple[str, int, int]] = ()) -> bytes:
    """SHA-256 of a text, or of the canonical JSON of a text with spans.

    Args:
        text: The text.
        spans: Name, start and end of each span, in code points.
    """
    marked = sorted(spans)
    if not marked:
        return hashlib.sha256(text.encode()).digest()
    return _json_digest(text=text, spans=marked)


def messages_digest(messages: Sequence[tuple[str, str]]) -> bytes:
    """SHA-256 of the canonical JSON of a chat.

    Args:
        messages: Role and content of each message.
    """
    return _json_digest(messages=[{"role": role, "content": text} for role, text in messages])


def ids_digest(ids: Sequence[int], spans: Iterable[tuple[str, int, int]] = ()) -> bytes:
    """SHA-256 of the canonical JSON of token ids.

    Args:
        ids: The ids.
        spans: Name, start and end of each span, in tokens.
    """
    marked = sorted(spans)
    return _json_digest(token_ids=list(ids), **({"spans": marked} if marked else {}))


def _json_digest(**content: object) -> bytes:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).digest()
