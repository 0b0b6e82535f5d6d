"""The log: one JSON object a line, with the id of the request that it tells of."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that is handled here, also in the threads that work for it; else empty."""


class JsonLines(logging.Formatter):
    """Writes a record as a line of JSON; what `extra={"fields": …}` holds become fields of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line, without its end; whatever the record holds, it is one line of ASCII."""
        time = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            line["request_id"] = current
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure() -> None:
    """Log to standard error, and Python's warnings with the rest."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)
