"""Logs on standard error: lines for people, or JSON lines for machines."""

import json
import logging
from datetime import datetime

from ..text import visible


class _Lines(logging.Formatter):
    """One line a record: time, level, message, facts."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line."""
        facts = getattr(record, "facts", {})
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        at = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        if self._as_json:
            head = {"time": at, "level": record.levelname.lower(), "message": message}
            return json.dumps(head | facts)
        pairs = " ".join(f"{name}={value}" for name, value in facts.items())
        return visible(f"{at} {record.levelname.lower()}: {message} {pairs}".rstrip())


def set_up_logs(form: str, level: str) -> None:
    """Write what the server and uvicorn log to standard error.

    Args:
        form: ``"text"`` or ``"json"``.
        level: Least level that is written, such as ``"info"``.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines(form == "json"))
    for name in ("splitrun", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper())
    # What it says of its start and end, the server says itself.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
