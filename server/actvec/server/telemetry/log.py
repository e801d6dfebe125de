"""The log: one line a record, as text or JSON, and one record a call."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from actvec.server.rpc.call import Call, CallListener

log = logging.getLogger("actvec.calls")


def configure_logging(style: str, level: str = "info") -> None:
    """Log to standard error.

    Libraries log from INFO on at most: their details are addresses and bytes, not ours to show.

    Args:
        style: `text` or `json`.
        level: `debug`, `info` or `warning`: the least that is logged.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    least = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(least, logging.INFO), handlers=[handler])
    logging.getLogger("actvec").setLevel(least)
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
    """One object per line: `time`, `level`, `logger`, `message`, the fields, `exception`."""

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


class CallLog(CallListener):
    """Writes one line per call at its end.

    Health and reflection, which machines ask for again and again, are at level DEBUG while they
    succeed.
    """

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
