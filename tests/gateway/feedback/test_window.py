"""The window of feedback: its bound is one of the memory that it takes."""

from __future__ import annotations

import time
import tracemalloc

from service.gateway.feedback.record import AnswerRecord, RecordedResult, RecordKeys
from service.gateway.feedback.window import AnswerWindow

MAX_BYTES = 2**21


def test_short_records_take_no_more_memory_than_the_bound() -> None:
    window = AnswerWindow(RecordKeys(b"s" * 16), None, max_bytes=MAX_BYTES, seconds=60)
    tracemalloc.start()
    try:
        for number in range(6_000):
            results = [RecordedResult(0, None, bytes(16), 0.5)]
            named = f"rr-{number:024d}"
            record = AnswerRecord(
                bytes(8), named, "acme", time.time(), "m", "d", None, bytes(16), results
            )
            window.put("tenant:acme", record)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert MAX_BYTES / 2 < taken < 1.3 * MAX_BYTES
