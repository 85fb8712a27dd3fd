"""The log: one line an event on standard error, a constant sentence with fields behind it.

Fields come with `extra={"fields": {...}}`. Never in them: payload, secrets, another process's data.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal

LogFormat = Literal["text", "json"]

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/:+@%,[]")


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _timestamp(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


class TextFormatter(logging.Formatter):
    """`<UTC time> <level> <sentence> name=value ...`, for people; values are quoted as JSON where they need it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and behind it the traceback if there is one."""
        parts = [_timestamp(record), record.levelname, record.getMessage()]
        for name, value in _fields(record).items():
            text = str(value)
            if not _PLAIN.issuperset(text) or not text:
                text = json.dumps(text, ensure_ascii=False)
            parts.append(f"{name}={text}")
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback is one of its fields."""
        fields = {
            "time": _timestamp(record),
            "level": record.levelname,
            "event": record.getMessage(),
            "logger": record.name,
            **_fields(record),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def configure(level: str, form: LogFormat) -> None:
    """Send everything from `level` on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What no line of ours shows need not be gathered for each of them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


log = logging.getLogger("holdfast_server")
"""For what happens before any part of the server is there."""
