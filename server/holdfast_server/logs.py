"""The log: one line an event on standard error, a constant sentence with fields behind it.

Fields come with `extra={"fields": {...}}`. Never in them: payload, secrets, another process's data.
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal

LogFormat = Literal["text", "json"]

_PLAIN = re.compile(r"[a-zA-Z0-9\-._~/:+@%,\[\]]+")


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _timestamp(moment: float) -> str:
    seconds = int(moment)
    return f"{_second(seconds)}.{int((moment - seconds) * 1000):03d}Z"


def _text(moment: float, level: str, sentence: str, fields: Mapping[str, Any]) -> str:
    parts = [_timestamp(moment), level, sentence]
    for name, value in fields.items():
        text = str(value)
        if not _PLAIN.fullmatch(text):
            text = json.dumps(text, ensure_ascii=False)
        parts.append(f"{name}={text}")
    return " ".join(parts)


def _json(moment: float, level: str, sentence: str, logger: str, fields: Mapping[str, Any]) -> str:
    line = {"time": _timestamp(moment), "level": level, "event": sentence, "logger": logger, **fields}
    return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """`<UTC time> <level> <sentence> name=value ...`, for people; values are quoted as JSON where they need it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and behind it the traceback if there is one."""
        line = _text(record.created, record.levelname, record.getMessage(), _fields(record))
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback is one of its fields."""
        fields = dict(_fields(record))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return _json(record.created, record.levelname, record.getMessage(), record.name, fields)


def line_writer(sentence: str, logger: str, form: LogFormat) -> Callable[[Mapping[str, Any]], None]:
    """Return what writes this sentence with the given fields at level INFO, past `logging`: for what every call logs.

    `logging` makes a record, asks every filter and holds a lock while it writes: about half of what our own code took
    around a StatBlob. One write(2) of a whole line needs none of it.
    """
    if sys.stderr is None:
        return lambda _fields: None  # the process was started without one
    descriptor = sys.stderr.fileno()

    def write(fields: Mapping[str, Any]) -> None:
        moment = time.time()
        line = (
            _json(moment, "INFO", sentence, logger, fields)
            if form == "json"
            else _text(moment, "INFO", sentence, fields)
        )
        with suppress(OSError):  # a log that nobody reads any more fails no call
            os.write(descriptor, f"{line}\n".encode(errors="backslashreplace"))

    return write


def configure(level: str, form: LogFormat) -> None:
    """Send everything from `level` on to standard error."""
    handler: logging.Handler = logging.NullHandler() if sys.stderr is None else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What no line of ours shows need not be gathered for each of them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


log = logging.getLogger("holdfast_server")
"""For what happens before any part of the server is there."""
