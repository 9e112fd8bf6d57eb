"""The metrics of feedback, each by its name, with its labels.

Does not depend on where feedback is kept. Invariant: as in `service.observability.metrics`, nothing
that a caller sent becomes a label.
"""

from __future__ import annotations

from service.observability.metric_types import counter, gauge

KINDS = ("answer", "content", "events", "forget", "picture")

FEEDBACK_ANSWERS = counter(
    "rerank_feedback_answers_total",
    "Answers of tenants that may send feedback, by outcome: recorded, not in the sample, or"
    " dropped because too much waited to be recorded.",
    outcome=("recorded", "unsampled", "dropped"),
)
FEEDBACK_EVENTS = counter(
    "rerank_feedback_events_total",
    "Events of POST /v1/feedback, by outcome: accepted, known before, on an answer that is not in"
    " the sample, refused with its whole request, or on an answer that takes no feedback.",
    outcome=("accepted", "repeated", "unsampled", "invalid_request", "unknown_request"),
)
FEEDBACK_LINES = counter(
    "rerank_feedback_lines_total",
    "Lines and pictures for the folder of feedback, by outcome: written, dropped because the"
    " buffer was full, failed because of the disk, or too large for a line.",
    kind=KINDS,
    outcome=("written", "dropped", "failed", "too_large"),
)
FEEDBACK_REMOVED = counter(
    "rerank_feedback_removed_files_total",
    "Files removed from the folder of feedback, by reason.",
    reason=("ttl", "bytes"),
)
FEEDBACK_BUFFER_BYTES = gauge(
    "rerank_feedback_buffer_bytes", "Bytes that wait to be recorded and written."
)
FEEDBACK_BUFFER_LIMIT_BYTES = gauge(
    "rerank_feedback_buffer_limit_bytes", "Maximum bytes that wait to be recorded and written."
)
FEEDBACK_RECORD_BYTES = gauge(
    "rerank_feedback_record_bytes",
    "Bytes of the records of answers that may still get feedback; in Redis, of those that this"
    " gateway wrote.",
    tier=("memory", "redis"),
)
FEEDBACK_DISK_BYTES = gauge(
    "rerank_feedback_disk_bytes", "Bytes of the folder of feedback at its last sweep.", "max"
)
FEEDBACK_DISK_LIMIT_BYTES = gauge(
    "rerank_feedback_disk_limit_bytes", "Maximum bytes of the folder of feedback.", "max"
)
