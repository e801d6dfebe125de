"""The log: one line a record, as text or JSON, and one record a call."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from actvec.server.calls.answers import Answers
from actvec.server.calls.call import Call

log = logging.getLogger("actvec.calls")


def configure_logging(style: str) -> None:
    """Log to standard error, everything from INFO on.

    Args:
        style: `text` or `json`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # The hub's client: a line per request of a download, signed addresses included.
    logging.getLogger("httpx2").setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    """`TIME LEVEL LOGGER: MESSAGE KEY=VALUE ...`; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        line = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}"
        for key, value in _fields(record).items():
            text = str(value)
            plain = text.isprintable() and not any(sign in text for sign in ' "=')
            line += f" {key}={text if plain else json.dumps(text)}"
        if record.exc_info:
            line += f"\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """An object a line: `time`, `level`, `logger`, `message`, the fields, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        entry = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class CallLog:
    """A `CallListener` that writes a line for each call when it is over.

    Health and reflection, which machines ask for again and again, are at level DEBUG while they
    succeed.
    """

    def began(self, call: Call) -> None:
        """Nothing is written yet."""

    def answered(self, call: Call, answers: Answers) -> None:
        """Nothing is written yet."""

    def ended(self, call: Call) -> None:
        """Write the line."""
        code = call.code.name if call.code else ""
        routine = code in {"OK", "CANCELLED"} and not call.of_service
        fields = {
            "id": call.id,
            "method": call.method,
            "peer": call.peer,
            "documents": call.answers.documents.total(),
            "failed": call.answers.failed,
            "tokens": call.answers.tokens,
            "ms": round(1000 * call.seconds, 1),
            "code": code,
        }
        log.log(logging.DEBUG if routine else logging.INFO, "call", extra={"fields": fields})


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {})
