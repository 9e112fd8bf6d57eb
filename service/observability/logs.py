"""The service's log on standard error: one JSON object per line, or plain text on a terminal.

Does not depend on HTTP or on any model. Invariant: a message is a fixed text of ours; values are
fields, and no field holds what a user sent.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import msgspec

logger = logging.getLogger("rerank")


class _Formatter(logging.Formatter):
    """Formats a record as JSON, or as plain text if it is for a `human`; with `pid`, the fields
    begin with the id of the process."""

    def __init__(self, *, human: bool, pid: bool) -> None:
        super().__init__()
        self._human = human
        self._pid = pid

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        timestamp = f"{seconds}.{int(record.msecs):03d}Z"
        level = record.levelname.lower()
        message = record.getMessage()
        fields: dict[str, Any] = {"pid": record.process} if self._pid else {}
        fields |= getattr(record, "fields", {})
        traceback = self.formatException(record.exc_info) if record.exc_info else None

        if self._human:
            words = [timestamp[11:19], level, message]
            words += [f"{name}={value}" for name, value in fields.items()]
            line = " ".join(words)
            return f"{line}\n{traceback}" if traceback else line

        entry = {"time": timestamp, "level": level, "message": message, **fields}
        if traceback:
            entry["trace"] = traceback
        return msgspec.json.encode(entry).decode()


def _not_about_killed_decoders(record: logging.LogRecord) -> bool:
    """Drop asyncio's warning about a child process whose exit status it cannot tell.

    Decoders are killed at the end of the process. Whether asyncio or the code that kills them
    collects the exit status first is chance, and asyncio warns of the latter.
    """
    return not str(record.msg).endswith("will report returncode 255")


def log_to_stderr(level: str = "info", *, pid: bool = False) -> None:
    """Send the service's log to standard error, and other libraries' warnings.

    `pid` is for one of several processes that write there: each line names the process.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(human=sys.stderr.isatty(), pid=pid))
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.WARNING)

    logging.getLogger("asyncio").addFilter(_not_about_killed_decoders)
    logger.setLevel(level.upper())


def log(
    message: str,
    level: int = logging.INFO,
    /,
    *,
    failure: BaseException | None = None,
    **fields: Any,
) -> None:
    """Log one line: a fixed message, its fields, and the traceback of a `failure`."""
    logger.log(level, message, extra={"fields": fields}, exc_info=failure)
