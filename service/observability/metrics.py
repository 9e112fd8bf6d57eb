"""The metrics of the gateway and of every process, each by its name, with its labels.

Does not depend on the code that observes them. The closed sets of label values are listed here, and
a counter's series exist from the start, so that the first increase of each is visible. Invariant:
nothing that a client sent becomes a label value, so that no client creates series; the digests of
the most recent models do, and of no others.
"""

from __future__ import annotations

from prometheus_client import REGISTRY

from service.errors import BY_CODE
from service.observability.metric_types import (
    COUNTS,
    LABELS,
    OPEN,
    SECONDS,
    SHORT_SECONDS,
    CallbackGauge,
    counter,
    gauge,
    histogram,
)
from service.observability.score_metrics import RESULTS, ScoreMetrics

STAGES = (
    "parse",
    "admit",
    "media",
    "cache_get",
    "score",
    "cache_set",
    "order",
    "fetch",
    "decode",
    "queue",
    "engine",
)
"""The stages of a request. The first seven follow each other. `fetch` is a part of `media`;
`decode`, and a worker's `queue` and `engine`, are parts of `score`, and overlap if a request needs
several calls."""

# -- requests --------------------------------------------------------------------------------------

REQUEST_SECONDS = histogram(
    "rerank_request_duration_seconds",
    "Time to answer a request; dialect is a vendor's shape of requests, 'worker' for a gateway's "
    "calls to a worker, 'none' for routes that rerank nothing.",
    SECONDS,
    route=OPEN,
    dialect=OPEN,
    status=OPEN,
)
STAGE_SECONDS = histogram(
    "rerank_stage_duration_seconds",
    "Time that a request spent in one stage, observed by the process that did the work.",
    SECONDS,
    stage=STAGES,
)
SCORING_SECONDS = histogram(
    "rerank_scoring_duration_seconds",
    "Time from the arrival of a rerank request until its documents are ranked.",
    SECONDS,
    documents=("1", "2-10", "11-100", "101-1000", "1001+"),
    modality=("text", "image", "mixed"),
)
DOCUMENTS = histogram("rerank_request_documents", "Documents in a rerank request.", COUNTS)
REQUEST_IMAGES = histogram(
    "rerank_request_images",
    "Images in a rerank request, those of its query included.",
    (0, *COUNTS),
)
IMAGES = counter("rerank_images_total", "Images decoded for scoring.")
TOKENS = counter(
    "rerank_prompt_tokens_total",
    "Prompt tokens of ranked pairs: computed by an engine, reused from its prefix cache, "
    "or of pairs whose score was cached.",
    source=("computed", "prefix", "cached"),
)
COMPLETION_TOKENS = counter(
    "rerank_completion_tokens_total",
    "Tokens that were written for the scores of ranked pairs, by models that write their scores.",
)
ERRORS = counter(
    "rerank_errors_total",
    "Requests that failed, and documents that failed in requests answered with "
    "on_error=skip, by error code.",
    code=tuple(BY_CODE),
)
SHED = counter(
    "rerank_shed_total",
    "Requests turned away because of load, or because no worker was ready.",
    reason=(
        "connections",
        "no_worker",
        "worker_wait_full",
        "body_budget",
        "queue_full",
        "expected_wait",
        "queue_timeout",
        "deadline",
        "worker_full",
        "streams",
        "stored_images",
    ),
)
STREAMS = gauge("rerank_streams", "Open streams of /v1/rerank/stream.")
STREAM_LINES = counter(
    "rerank_stream_lines_total",
    "Lines of streams that were answered, by outcome: ok, or the code of the error.",
    outcome=("ok", *BY_CODE),
)
STREAM_LINE_SECONDS = histogram(
    "rerank_stream_line_duration_seconds",
    "Time from reading a line of a stream to its answer, the time that it waited behind requests "
    "included.",
    SECONDS,
)
STREAM_LINES_IN_FLIGHT = gauge(
    "rerank_stream_lines_in_flight", "Lines of streams that were read and are not answered yet."
)
IN_FLIGHT = gauge("rerank_requests_in_flight", "Requests admitted and not answered yet.")
QUEUED = gauge("rerank_requests_queued", "Requests waiting in the admission queue.")
QUEUED_LIMIT = gauge(
    "rerank_requests_queued_limit", "Maximum number of requests in the admission queue."
)
WAITING_FOR_WORKER = gauge(
    "rerank_requests_waiting_for_worker",
    "Requests that wait for a worker while none is ready.",
)
WAITING_FOR_WORKER_LIMIT = gauge(
    "rerank_requests_waiting_for_worker_limit",
    "Maximum number of requests that wait for a worker; 0 where they are refused at once.",
)
WAIT_LIMIT_SECONDS = gauge(
    "rerank_worker_wait_limit_seconds",
    "Seconds that a request may wait for a worker; 0 where it is refused at once.",
    "max",
)
ADMITTED_TOKENS = gauge(
    "rerank_admitted_tokens", "Estimated prompt tokens of the admitted requests."
)
CAPACITY_TOKENS = gauge(
    "rerank_capacity_tokens",
    "Estimated prompt tokens that can be admitted before requests are queued.",
)
BODY_BYTES = gauge("rerank_request_bodies_bytes", "Bytes of request bodies held in memory.")
BODY_LIMIT_BYTES = gauge(
    "rerank_request_bodies_limit_bytes", "Maximum bytes of request bodies held in memory."
)
CONNECTIONS = gauge("rerank_connections", "Open client connections.")
CONNECTION_LIMIT = gauge(
    "rerank_connections_limit",
    "Maximum number of client connections; beyond it only the health routes are answered.",
)
IMAGE_FETCHES = counter(
    "rerank_image_fetches_total",
    "Images requested from image URLs, by outcome.",
    outcome=("fetched", "deadline", "image_too_large", "image_url_disabled", "invalid_image"),
)
QUARANTINED = counter(
    "rerank_quarantined_images_total",
    "Images refused because they recently killed or stalled a decoder.",
)

# -- the score cache -------------------------------------------------------------------------------

_OPERATIONS = ("get", "set", "image_get", "image_set", "feedback_get", "feedback_set")
CACHE_LOOKUPS = counter(
    "rerank_cache_lookups_total",
    "Pairs looked up in the score cache, by tier and result.",
    tier=("memory", "redis"),
    result=("hit", "miss"),
)
CACHE_SECONDS = histogram(
    "rerank_cache_call_duration_seconds",
    "Time that requests waited for a call to Redis.",
    SHORT_SECONDS,
    operation=_OPERATIONS,
)
CACHE_FAILURES = counter(
    "rerank_cache_failures_total",
    "Failed calls to Redis, by kind of failure.",
    operation=_OPERATIONS,
    kind=("auth", "connection", "oom", "other", "pool", "readonly", "timeout"),
)
CACHE_SKIPPED = counter(
    "rerank_cache_skipped_total",
    "Calls to Redis that were skipped: its circuit was open, or too many writes were pending.",
    operation=_OPERATIONS,
    reason=("backlog", "circuit_open"),
)
CACHE_REJECTED = counter(
    "rerank_cache_rejected_total",
    "Values read from Redis and rejected, by the check that failed.",
    reason=("schema", "size", "mac", "numbers"),
)
CACHE_CIRCUIT = gauge(
    "rerank_cache_circuit_state",
    "State of the circuit breaker for Redis: 0 closed, 1 half open, 2 open.",
    "max",
    operation=_OPERATIONS,
)
CACHE_BYTES = gauge("rerank_cache_memory_bytes", "Bytes used by the score cache's memory tier.")
CACHE_LIMIT_BYTES = gauge(
    "rerank_cache_memory_limit_bytes", "Maximum bytes of the score cache's memory tier."
)
COALESCED = counter(
    "rerank_pairs_coalesced_total",
    "Pairs that were not scored again because an equal pair of another request was being scored.",
)

# -- a gateway's workers ---------------------------------------------------------------------------

WORKERS = gauge(
    "rerank_workers",
    "Workers by state; a worker in several states counts in the most severe one.",
    "max",
    state=("ready", "unresponsive", "circuit_open", "unready"),
)
WORKER_CALLS = counter(
    "rerank_worker_calls_total",
    "Calls from the gateway to workers, by outcome.",
    outcome=(
        *("ok", "cancelled", "invalid_request", "model_not_found"),
        *("overloaded", "no_worker", "deadline_exceeded", "worker_failed"),
    ),
)
WORKER_CALL_SECONDS = histogram(
    "rerank_worker_call_duration_seconds", "Time of a call to a worker that replied.", SECONDS
)
WORKER_EXTRA_CALLS = counter(
    "rerank_worker_extra_calls_total",
    "Calls sent to a second worker, as a retry or as a hedge, and those denied by the "
    "retry budget.",
    kind=("retry", "hedge", "denied"),
)
REQUEST_WORKERS = histogram(
    "rerank_request_workers",
    "Workers that the scoring of a request is split over.",
    (1, 2, 4, 8, 16, 32, 64),
)
MODEL_WORKERS = CallbackGauge(
    "rerank_model_workers", "Ready workers by model and model digest.", ("model", "digest")
)

# -- scores, by the model that they are of ---------------------------------------------------------

SCORE_METRICS = ScoreMetrics()
LABELS |= {
    "rerank_relevance_score": {"digest": OPEN},
    "rerank_pairs_total": {"digest": OPEN, "result": RESULTS},
    "rerank_truncated_pairs_total": {"digest": OPEN},
}
REGISTRY.register(SCORE_METRICS)

# -- the process -----------------------------------------------------------------------------------

LOOP_LAG_SECONDS = histogram(
    "rerank_event_loop_lag_seconds",
    "Delay of the event loop: how much later than scheduled it woke up.",
    SHORT_SECONDS,
)
PROCESSES = gauge(
    "rerank_processes", "Processes that serve on the port of a gateway: 1, or RERANK_PROCESSES."
)
PROCESSES_ENDED = counter(
    "rerank_processes_ended_total",
    "Processes of a gateway that ended, or were ended because they hung, and were replaced.",
)
CACHE_SECRET_INFO = gauge(
    "rerank_cache_secret_info",
    "1 for the fingerprint of the secret of the score cache; gateways that share a Redis have one.",
    "max",
    fingerprint=OPEN,
)
FILE_READABLE = gauge(
    "rerank_file_readable",
    "1 if a file named in the settings can be used, 0 if it cannot.",
    "min",
    file=("api_keys", "redis_ca", "redis_certificate", "redis_password"),
)
TRACE_SPANS = counter(
    "rerank_trace_spans_total",
    "Spans that ended, were exported, or were lost by a failed export.",
    outcome=("ended", "sent", "lost"),
)
BUILD_INFO = gauge(
    "rerank_build_info",
    "1 for the version that runs, with the role of the process.",
    "max",
    version=OPEN,
    role=("gateway", "worker", "serve"),
)
