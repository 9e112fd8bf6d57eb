"""The service's log: one JSON object a line; on a terminal, words.

Knows no HTTP and no models. Invariant: a message is a fixed text of ours; what varies stands in
fields, of which none holds what a user sent.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import msgspec

logger = logging.getLogger("rerank")


class _Lines(logging.Formatter):
    """One JSON object a line; on a terminal, words."""

    def __init__(self, *, human: bool) -> None:
        super().__init__()
        self._human = human

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        stamp = (
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z"
        )
        trace = self.formatException(record.exc_info) if record.exc_info else None
        if self._human:
            said = " ".join(
                [
                    stamp[11:19],
                    record.levelname.lower(),
                    record.getMessage(),
                    *(f"{k}={v}" for k, v in fields.items()),
                ]
            )
            return f"{said}\n{trace}" if trace else said
        entry = {
            "time": stamp,
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **fields,
        }
        return msgspec.json.encode(entry | ({"trace": trace} if trace else {})).decode()


def _worth_saying(record: logging.LogRecord) -> bool:
    """Whether a line of asyncio's tells an operator something.

    Decoders are killed at the end of the process, and whether their end is seen first by asyncio or
    by whoever kills them is chance: asyncio warns of the latter.
    """
    return not str(record.msg).endswith("will report returncode 255")


def log_to_stderr(level: str = "info") -> None:
    """Send this service's log to standard error; other libraries only when they warn."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(human=sys.stderr.isatty()))
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.WARNING)
    logging.getLogger("asyncio").addFilter(_worth_saying)
    logger.setLevel(level.upper())


def log(
    message: str,
    level: int = logging.INFO,
    /,
    *,
    failure: BaseException | None = None,
    **fields: Any,
) -> None:
    """Log one line: a fixed message and its fields."""
    logger.log(level, message, extra={"fields": fields}, exc_info=failure)
