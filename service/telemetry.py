"""What the service says of itself: every metric's name, the request's id, its stages' timings, its log line.

Knows no HTTP and no models. Invariant: label values come from closed sets, and nothing a user sent is logged or exported.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, Info

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)
_CACHE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

REQUEST_SECONDS = Histogram("rerank_request_duration_seconds", "Time to answer a request.", ["route", "status"], buckets=_SECONDS)
STAGE_SECONDS = Histogram("rerank_stage_duration_seconds", "Time a request spends in one stage.", ["stage"], buckets=_SECONDS)
DOCUMENTS = Histogram("rerank_request_documents", "Documents of a request.", buckets=_COUNTS)
IMAGES = Counter("rerank_images_total", "Images decoded for scoring.")
TOKENS = Counter("rerank_prompt_tokens_total", "Prompt tokens of scored pairs, by where the score came from.", ["source"])
ERRORS = Counter("rerank_errors_total", "Requests and documents refused or failed, by error code.", ["code"])
SHED = Counter("rerank_shed_total", "Requests turned away unserved.", ["reason"])
IN_FLIGHT = Gauge("rerank_requests_in_flight", "Requests admitted and not yet answered.")
WAITING = Gauge("rerank_requests_waiting", "Requests that wait to be admitted.")
ADMITTED_TOKENS = Gauge("rerank_admitted_tokens", "Estimated prompt tokens of admitted requests.")
CAPACITY_TOKENS = Gauge("rerank_capacity_tokens", "Estimated prompt tokens that may be admitted before others must wait.")
BODY_BYTES = Gauge("rerank_request_bodies_bytes", "Bytes of request bodies held at once.")
KEYS_FILE_OK = Gauge("rerank_api_keys_file_ok", "1 while the keys file is as it was read last, 0 where it cannot be read.")
CACHE_LOOKUPS = Counter("rerank_cache_lookups_total", "Pairs looked up in the score cache.", ["tier", "result"])
CACHE_SECONDS = Histogram(
    "rerank_cache_call_seconds", "Time of a call to Redis, as far as it was waited for.", ["operation"], buckets=_CACHE_SECONDS
)
CACHE_FAILURES = Counter("rerank_cache_failures_total", "Calls to Redis that failed, by what went wrong.", ["operation", "kind"])
CACHE_SKIPPED = Counter("rerank_cache_skipped_total", "Calls to Redis that were not made.", ["operation", "reason"])
CACHE_REJECTED = Counter("rerank_cache_rejected_total", "Values in Redis that were not believed.", ["reason"])
CACHE_BREAKER = Gauge("rerank_cache_breaker_state", "Redis' breaker: 0 closed, 1 half open, 2 open.", ["operation"])
JOINED = Counter("rerank_pairs_joined_total", "Pairs whose score was under way for another request.")
CACHE_BYTES = Gauge("rerank_cache_memory_bytes", "Size of the score cache's memory tier.")
WORKER_CALLS = Counter("rerank_worker_calls_total", "Calls from the gateway to a worker, by outcome.", ["outcome"])
WORKER_EXTRA_CALLS = Counter(
    "rerank_worker_extra_calls_total", "Calls made again or a second time, and those that were not within the budget.", ["kind"]
)
WORKERS = Gauge("rerank_workers", "Workers by what is the matter with them.", ["state"])
SPLIT = Histogram("rerank_request_workers", "Workers that a request's scoring is split over.", buckets=(1, 2, 4, 8, 16, 32, 64))
BATCH_TOKENS = Histogram(
    "rerank_batch_tokens", "Tokens computed in one forward pass.", buckets=(64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
)
ISOLATED = Counter("rerank_isolated_pairs_total", "Pairs that the engine could not score, refused alone.")
IMAGE_FETCHES = Counter("rerank_image_fetches_total", "Images asked for at URLs, by outcome.", ["outcome"])
QUARANTINED = Counter("rerank_quarantined_images_total", "Images refused because they harmed a decoder a moment ago.")
MODEL = Info("rerank_model", "The model that is served.")

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the request being served, for logs and for calls to a worker."""

_timings: ContextVar[dict[str, float] | None] = ContextVar("timings", default=None)

_ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_MAX_ID = 128


def accept_request_id(offered: str | None) -> str:
    """The client's own id if it is at most 128 of `[A-Za-z0-9._-]`, else a new one."""
    if offered and len(offered) <= _MAX_ID and _ID_CHARACTERS.issuperset(offered):
        return offered
    return f"rr-{secrets.token_hex(12)}"


@contextmanager
def timed_request(identity: str) -> Iterator[dict[str, float]]:
    """Collect the stages of one request, in seconds by name."""
    timings: dict[str, float] = {}
    id_token, timings_token = request_id.set(identity), _timings.set(timings)
    try:
        yield timings
    finally:
        request_id.reset(id_token)
        _timings.reset(timings_token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time one stage of a request: into its histogram, and into the request's own timings."""
    start = time.perf_counter()
    try:
        yield
    finally:
        note(name, time.perf_counter() - start)


def note(name: str, seconds: float) -> None:
    """Record a stage that was timed elsewhere, such as in a worker."""
    STAGE_SECONDS.labels(name).observe(seconds)
    timings = _timings.get()
    if timings is not None:
        timings[name] = timings.get(name, 0.0) + seconds


def server_timing(timings: dict[str, float]) -> str:
    """A `Server-Timing` header's value, in milliseconds."""
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in timings.items())


class _Lines(logging.Formatter):
    """One JSON object a line; on a terminal, words."""

    def __init__(self, *, human: bool) -> None:
        super().__init__()
        self._human = human

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        trace = self.formatException(record.exc_info) if record.exc_info else None
        if self._human:
            said = " ".join(
                [stamp[11:19], record.levelname.lower(), record.getMessage(), *(f"{k}={v}" for k, v in fields.items())]
            )
            return f"{said}\n{trace}" if trace else said
        entry = {"time": stamp, "level": record.levelname.lower(), "message": record.getMessage(), **fields}
        return json.dumps(entry | ({"trace": trace} if trace else {}), ensure_ascii=True)


def log_to_stderr(level: str = "info") -> None:
    """Send this service's log to standard error; other libraries only when they warn."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(human=sys.stderr.isatty()))
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.WARNING)
    log.setLevel(level.upper())


log = logging.getLogger("rerank")


def say(message: str, level: int = logging.INFO, /, *, failure: BaseException | None = None, **fields: Any) -> None:
    """Log one line: a fixed message and its fields."""
    log.log(level, message, extra={"fields": fields}, exc_info=failure)
