"""What the service counts and measures: every metric by its name, with its labels.

Knows nothing of how any of it comes about. Where a label's values are a closed set they stand here,
and a counter's series are there from the start, so that the first increase of each is seen.
Invariant: nothing that a user sent becomes a label, so that no client can make series; a model's
digest does, of the last few models alone.
"""

from __future__ import annotations

from prometheus_client import REGISTRY

from service.errors import BY_CODE
from service.observability.metric_types import (
    LABELS,
    OPEN,
    CallbackGauge,
    counter,
    gauge,
    histogram,
)
from service.observability.score_metrics import RESULTS, ScoreMetrics

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)
_SHORT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)

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
"""The first seven follow each other. URLs are fetched within `media`; within `score`, images are
decoded, and a worker lets a call wait (`queue`) and works on it (`engine`): several at once, where
a request's pairs go in several calls."""


# -- requests --------------------------------------------------------------------------------------

REQUEST_SECONDS = histogram(
    "rerank_request_duration_seconds",
    "Time to answer a request; dialect is 'worker' for a worker's calls, 'none' where nothing is"
    " reranked.",
    _SECONDS,
    route=OPEN,
    dialect=("native", "worker", "none"),
    status=OPEN,
)
STAGE_SECONDS = histogram(
    "rerank_stage_duration_seconds",
    "Time that a request spends in one stage, measured where it is spent.",
    _SECONDS,
    stage=STAGES,
)
SCORING_SECONDS = histogram(
    "rerank_scoring_duration_seconds",
    "Time from a request's arrival until its documents are ranked.",
    _SECONDS,
    documents=("1", "2-10", "11-100", "101-1000", "1001+"),
    modality=("text", "image", "mixed"),
)
DOCUMENTS = histogram("rerank_request_documents", "Documents of a request.", _COUNTS)
REQUEST_IMAGES = histogram(
    "rerank_request_images", "Images of a request, its query's included.", (0, *_COUNTS)
)
IMAGES = counter("rerank_images_total", "Images decoded for scoring.")
TOKENS = counter(
    "rerank_prompt_tokens_total",
    "Prompt tokens of ranked pairs: computed, reused by an engine's prefix cache, or of pairs whose"
    " score was known.",
    source=("computed", "prefix", "cached"),
)
ERRORS = counter(
    "rerank_errors_total",
    "Requests and documents refused or failed, by error code.",
    code=tuple(BY_CODE),
)
SHED = counter(
    "rerank_shed_total",
    "Requests turned away unserved.",
    reason=(
        "connections",
        "no_worker",
        "bodies",
        "line_full",
        "wait_too_long",
        "waited_too_long",
        "deadline",
        "worker_full",
    ),
)
IN_FLIGHT = gauge("rerank_requests_in_flight", "Requests admitted and not yet answered.")
WAITING = gauge("rerank_requests_waiting", "Requests that wait to be admitted.")
WAITING_LIMIT = gauge("rerank_requests_waiting_limit", "Requests that may wait to be admitted.")
ADMITTED_TOKENS = gauge("rerank_admitted_tokens", "Estimated prompt tokens of admitted requests.")
CAPACITY_TOKENS = gauge(
    "rerank_capacity_tokens",
    "Estimated prompt tokens that may be admitted before others must wait.",
)
BODY_BYTES = gauge("rerank_request_bodies_bytes", "Bytes of request bodies held at once.")
BODY_LIMIT_BYTES = gauge(
    "rerank_request_bodies_limit_bytes", "Bytes of request bodies that may be held at once."
)
CONNECTIONS = gauge("rerank_connections", "Open connections of clients.")
CONNECTION_LIMIT = gauge(
    "rerank_connections_limit", "Open connections beyond which only health is answered."
)
IMAGE_FETCHES = counter(
    "rerank_image_fetches_total",
    "Images asked for at URLs, by outcome.",
    outcome=("fetched", "deadline", "image_too_large", "image_url_disabled", "invalid_image"),
)
QUARANTINED = counter(
    "rerank_quarantined_images_total", "Images refused because they harmed a decoder a moment ago."
)

# -- the score cache -------------------------------------------------------------------------------

_OPERATIONS = ("get", "set")
CACHE_LOOKUPS = counter(
    "rerank_cache_lookups_total",
    "Pairs looked up in the score cache.",
    tier=("memory", "redis"),
    result=("hit", "miss"),
)
CACHE_SECONDS = histogram(
    "rerank_cache_call_duration_seconds",
    "Time of a call to Redis, as far as it was waited for.",
    _SHORT_SECONDS,
    operation=_OPERATIONS,
)
CACHE_FAILURES = counter(
    "rerank_cache_failures_total",
    "Calls to Redis that failed, by what went wrong.",
    operation=_OPERATIONS,
    kind=("auth", "connection", "oom", "other", "pool", "readonly", "timeout"),
)
CACHE_SKIPPED = counter(
    "rerank_cache_skipped_total",
    "Calls to Redis that were not made.",
    operation=_OPERATIONS,
    reason=("backlog", "breaker"),
)
CACHE_REJECTED = counter(
    "rerank_cache_rejected_total",
    "Values in Redis that were not believed.",
    reason=("schema", "size", "seal", "numbers"),
)
CACHE_BREAKER = gauge(
    "rerank_cache_breaker_state",
    "Redis' breaker: 0 closed, 1 half open, 2 open.",
    operation=_OPERATIONS,
)
CACHE_BYTES = gauge("rerank_cache_memory_bytes", "Size of the score cache's memory tier.")
CACHE_LIMIT_BYTES = gauge(
    "rerank_cache_memory_limit_bytes", "Size that the score cache's memory tier may have."
)
JOINED = counter(
    "rerank_pairs_joined_total", "Pairs whose score was under way for another request."
)

# -- a gateway's workers ---------------------------------------------------------------------------

WORKERS = gauge(
    "rerank_workers",
    "Workers by what is the matter with them, the worst first.",
    state=("ready", "silent", "open", "unready"),
)
WORKER_CALLS = counter(
    "rerank_worker_calls_total",
    "Calls from the gateway to a worker, by outcome.",
    outcome=(
        *("ok", "cancelled", "invalid_request", "model_not_found"),
        *("overloaded", "no_worker", "deadline_exceeded", "worker_failed"),
    ),
)
WORKER_CALL_SECONDS = histogram(
    "rerank_worker_call_duration_seconds", "Time of a call to a worker that was answered.", _SECONDS
)
WORKER_EXTRA_CALLS = counter(
    "rerank_worker_extra_calls_total",
    "Calls made again or a second time, and those that were not within the budget.",
    kind=("retry", "hedge", "denied"),
)
SPLIT = histogram(
    "rerank_request_workers",
    "Workers that a request's scoring is split over.",
    (1, 2, 4, 8, 16, 32, 64),
)
MODEL_WORKERS = CallbackGauge(
    "rerank_model_workers", "Ready workers that serve a model in one digest.", ("model", "digest")
)

# -- a worker and its engine -----------------------------------------------------------------------

ENGINE_CALLS = gauge(
    "rerank_engine_calls_in_flight", "Calls that a worker has accepted and not answered yet."
)
ENGINE_CALL_LIMIT = gauge("rerank_engine_calls_limit", "Calls that a worker accepts at once.")
ENGINE_PAIRS = gauge(
    "rerank_engine_pairs_in_flight", "Pairs of accepted calls that have no verdict yet."
)
ENGINE_TOKENS = counter(
    "rerank_engine_prompt_tokens_total",
    "Prompt tokens of pairs that the engine scored: computed, or reused by its prefix cache.",
    source=("computed", "prefix"),
)
ENGINE_STEPS = counter("rerank_engine_steps_total", "Forward passes over pairs.")
BATCH_PAIRS = histogram("rerank_batch_pairs", "Pairs that one forward pass scored.", _COUNTS)
BATCH_TOKENS = histogram("rerank_batch_tokens", "Tokens computed in one forward pass.", _TOKENS)
BATCH_FILL = histogram(
    "rerank_batch_fill_ratio", "Share of a forward pass's token budget that was used.", _SHARES
)
STALLED_SECONDS = gauge(
    "rerank_engine_stalled_seconds",
    "How long the engine has had work of which nothing was done; 0: idle.",
)
ISOLATED = counter(
    "rerank_isolated_pairs_total", "Pairs that the engine could not score, refused alone."
)
IMAGE_CACHE = counter(
    "rerank_image_cache_lookups_total",
    "Images of pairs, by whether the engine still had their embeddings.",
    result=("hit", "miss"),
)
LOAD_SECONDS = gauge(
    "rerank_model_load_seconds",
    "Time from the start until the model was ready, its golden pairs scored.",
)
DRIFT = gauge(
    "rerank_golden_drift_logits",
    "How far golden pairs were off at most, when they were last scored.",
    model=OPEN,
    digest=OPEN,
)
GOLDEN_PAIRS = gauge(
    "rerank_golden_pairs",
    "Golden pairs of a model that is served; 0: it has none, its check at start was skipped, and no"
    " drift is measured.",
    model=OPEN,
    digest=OPEN,
)
TOLERANCE = gauge(
    "rerank_golden_tolerance_logits", "How far a golden pair may be off.", model=OPEN, digest=OPEN
)
MODEL = gauge(
    "rerank_model_info",
    "1 for each model that a worker serves; `version` is what a registry lists it under.",
    model=OPEN,
    digest=OPEN,
    version=OPEN,
    engine=OPEN,
    dtype=OPEN,
    device=OPEN,
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
    "How late the event loop was when it was to wake up.",
    _SHORT_SECONDS,
)
FILE_READABLE = gauge(
    "rerank_file_readable",
    "1 while a file that the settings name can be used, 0 where it cannot.",
    file=("api_keys", "redis_ca", "redis_certificate", "redis_password"),
)
TRACE_SPANS = counter(
    "rerank_trace_spans_total",
    "Spans that ended, that were sent, and that were lost.",
    outcome=("ended", "sent", "lost"),
)
BUILD = gauge(
    "rerank_build_info",
    "1 for the version that runs, and as what.",
    version=OPEN,
    role=("gateway", "worker", "serve"),
)
