"""What the service counts and measures: every metric by its name, with its labels.

Knows nothing of how any of it comes about. Where a label's values are a closed set they stand here, and a counter's series are
there from the start, so that the first increase of each is seen. Invariant: nothing that a user sent becomes a label, so that no
client can make series; a model's digest does, of the last few models alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.errors import BY_CODE
from service.observability.score_metrics import RESULTS, ScoreMetrics

disable_created_metrics()  # a second series beside each of a counter and a histogram, which nobody reads

LABELS: dict[str, dict[str, Sequence[str]]] = {}
"""By metric, its labels, and the values of those whose values are a closed set; of others none."""
_OPEN: Sequence[str] = ()

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)
_SHORT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)

STAGES = ("parse", "admit", "media", "cache_get", "score", "cache_set", "order", "fetch", "decode", "queue", "engine")
"""The first seven follow each other. URLs are fetched within `media`; within `score`, images are decoded, and a worker lets a
call wait (`queue`) and works on it (`engine`): several at once, where a request's pairs go in several calls."""


class CallbackGauge(Collector):
    """A gauge whose series are counted when they are asked for: those of things that come and go."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str]) -> None:
        LABELS[name] = dict.fromkeys(labels, _OPEN)
        self._name, self._meaning, self._labels = name, meaning, labels
        self._count: Callable[[], Mapping[tuple[str, ...], int]] = dict
        REGISTRY.register(self)

    def set_function(self, count: Callable[[], Mapping[tuple[str, ...], int]]) -> None:
        """From now on have the series counted by `count`, by their labels' values."""
        self._count = count

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, number in self._count().items():
            family.add_metric(values, number)
        yield family


def _counter(name: str, meaning: str, **labels: Sequence[str]) -> Counter:
    LABELS[name] = labels
    counter = Counter(name, meaning, list(labels))
    for values in itertools.product(*labels.values()) if labels else ():
        counter.labels(*values)
    return counter


def _gauge(name: str, meaning: str, **labels: Sequence[str]) -> Gauge:
    LABELS[name] = labels
    return Gauge(name, meaning, list(labels))


def _histogram(name: str, meaning: str, buckets: Sequence[float], **labels: Sequence[str]) -> Histogram:
    LABELS[name] = labels
    return Histogram(name, meaning, list(labels), buckets=buckets)


# -- requests -------------------------------------------------------------------------------------------------------------

REQUEST_SECONDS = _histogram(
    "rerank_request_duration_seconds",
    "Time to answer a request; dialect is 'worker' for a worker's calls, 'none' where nothing is reranked.",
    _SECONDS,
    route=_OPEN,
    dialect=("native", "worker", "none"),
    status=_OPEN,
)
STAGE_SECONDS = _histogram(
    "rerank_stage_duration_seconds",
    "Time that a request spends in one stage, measured where it is spent.",
    _SECONDS,
    stage=STAGES,
)
SCORING_SECONDS = _histogram(
    "rerank_scoring_duration_seconds",
    "Time from a request's arrival until its documents are ranked.",
    _SECONDS,
    documents=("1", "2-10", "11-100", "101-1000", "1001+"),
    modality=("text", "image", "mixed"),
)
DOCUMENTS = _histogram("rerank_request_documents", "Documents of a request.", _COUNTS)
REQUEST_IMAGES = _histogram("rerank_request_images", "Images of a request, its query's included.", (0, *_COUNTS))
IMAGES = _counter("rerank_images_total", "Images decoded for scoring.")
TOKENS = _counter(
    "rerank_prompt_tokens_total",
    "Prompt tokens of ranked pairs: computed, reused by an engine's prefix cache, or of pairs whose score was known.",
    source=("computed", "prefix", "cached"),
)
ERRORS = _counter("rerank_errors_total", "Requests and documents refused or failed, by error code.", code=tuple(BY_CODE))
SHED = _counter(
    "rerank_shed_total",
    "Requests turned away unserved.",
    reason=("connections", "no_worker", "bodies", "line_full", "wait_too_long", "waited_too_long", "deadline", "worker_full"),
)
IN_FLIGHT = _gauge("rerank_requests_in_flight", "Requests admitted and not yet answered.")
WAITING = _gauge("rerank_requests_waiting", "Requests that wait to be admitted.")
WAITING_LIMIT = _gauge("rerank_requests_waiting_limit", "Requests that may wait to be admitted.")
ADMITTED_TOKENS = _gauge("rerank_admitted_tokens", "Estimated prompt tokens of admitted requests.")
CAPACITY_TOKENS = _gauge("rerank_capacity_tokens", "Estimated prompt tokens that may be admitted before others must wait.")
BODY_BYTES = _gauge("rerank_request_bodies_bytes", "Bytes of request bodies held at once.")
BODY_LIMIT_BYTES = _gauge("rerank_request_bodies_limit_bytes", "Bytes of request bodies that may be held at once.")
CONNECTIONS = _gauge("rerank_connections", "Open connections of clients.")
CONNECTION_LIMIT = _gauge("rerank_connections_limit", "Open connections beyond which only health is answered.")
IMAGE_FETCHES = _counter(
    "rerank_image_fetches_total",
    "Images asked for at URLs, by outcome.",
    outcome=("fetched", "deadline", "image_too_large", "image_url_disabled", "invalid_image"),
)
QUARANTINED = _counter("rerank_quarantined_images_total", "Images refused because they harmed a decoder a moment ago.")

# -- the score cache ------------------------------------------------------------------------------------------------------

_OPERATIONS = ("get", "set")
CACHE_LOOKUPS = _counter(
    "rerank_cache_lookups_total", "Pairs looked up in the score cache.", tier=("memory", "redis"), result=("hit", "miss")
)
CACHE_SECONDS = _histogram(
    "rerank_cache_call_duration_seconds",
    "Time of a call to Redis, as far as it was waited for.",
    _SHORT_SECONDS,
    operation=_OPERATIONS,
)
CACHE_FAILURES = _counter(
    "rerank_cache_failures_total",
    "Calls to Redis that failed, by what went wrong.",
    operation=_OPERATIONS,
    kind=("auth", "connection", "oom", "other", "pool", "readonly", "timeout"),
)
CACHE_SKIPPED = _counter(
    "rerank_cache_skipped_total", "Calls to Redis that were not made.", operation=_OPERATIONS, reason=("backlog", "breaker")
)
CACHE_REJECTED = _counter(
    "rerank_cache_rejected_total", "Values in Redis that were not believed.", reason=("schema", "size", "seal", "numbers")
)
CACHE_BREAKER = _gauge("rerank_cache_breaker_state", "Redis' breaker: 0 closed, 1 half open, 2 open.", operation=_OPERATIONS)
CACHE_BYTES = _gauge("rerank_cache_memory_bytes", "Size of the score cache's memory tier.")
CACHE_LIMIT_BYTES = _gauge("rerank_cache_memory_limit_bytes", "Size that the score cache's memory tier may have.")
JOINED = _counter("rerank_pairs_joined_total", "Pairs whose score was under way for another request.")

# -- a gateway's workers --------------------------------------------------------------------------------------------------

WORKERS = _gauge(
    "rerank_workers", "Workers by what is the matter with them, the worst first.", state=("ready", "silent", "open", "unready")
)
WORKER_CALLS = _counter(
    "rerank_worker_calls_total",
    "Calls from the gateway to a worker, by outcome.",
    outcome=(
        *("ok", "cancelled", "invalid_request", "model_not_found"),
        *("overloaded", "no_worker", "deadline_exceeded", "worker_failed"),
    ),
)
WORKER_CALL_SECONDS = _histogram("rerank_worker_call_duration_seconds", "Time of a call to a worker that was answered.", _SECONDS)
WORKER_EXTRA_CALLS = _counter(
    "rerank_worker_extra_calls_total",
    "Calls made again or a second time, and those that were not within the budget.",
    kind=("retry", "hedge", "denied"),
)
SPLIT = _histogram("rerank_request_workers", "Workers that a request's scoring is split over.", (1, 2, 4, 8, 16, 32, 64))
MODEL_WORKERS = CallbackGauge("rerank_model_workers", "Ready workers that serve a model in one digest.", ("model", "digest"))

# -- a worker and its engine ----------------------------------------------------------------------------------------------

ENGINE_CALLS = _gauge("rerank_engine_calls_in_flight", "Calls that a worker has accepted and not answered yet.")
ENGINE_CALL_LIMIT = _gauge("rerank_engine_calls_limit", "Calls that a worker accepts at once.")
ENGINE_PAIRS = _gauge("rerank_engine_pairs_in_flight", "Pairs of accepted calls that have no verdict yet.")
ENGINE_TOKENS = _counter(
    "rerank_engine_prompt_tokens_total",
    "Prompt tokens of pairs that the engine scored: computed, or reused by its prefix cache.",
    source=("computed", "prefix"),
)
ENGINE_STEPS = _counter("rerank_engine_steps_total", "Forward passes over pairs.")
BATCH_PAIRS = _histogram("rerank_batch_pairs", "Pairs that one forward pass scored.", _COUNTS)
BATCH_TOKENS = _histogram("rerank_batch_tokens", "Tokens computed in one forward pass.", _TOKENS)
BATCH_FILL = _histogram("rerank_batch_fill_ratio", "Share of a forward pass's token budget that was used.", _SHARES)
STALLED_SECONDS = _gauge("rerank_engine_stalled_seconds", "How long the engine has had work of which nothing was done; 0: idle.")
ISOLATED = _counter("rerank_isolated_pairs_total", "Pairs that the engine could not score, refused alone.")
IMAGE_CACHE = _counter(
    "rerank_image_cache_lookups_total",
    "Images of pairs, by whether the engine still had their embeddings.",
    result=("hit", "miss"),
)
LOAD_SECONDS = _gauge("rerank_model_load_seconds", "Time from the start until the model was ready, its golden pairs scored.")
DRIFT = _gauge(
    "rerank_golden_drift_logits", "How far golden pairs were off at most, when they were last scored.", model=_OPEN, digest=_OPEN
)
GOLDEN_PAIRS = _gauge(
    "rerank_golden_pairs",
    "Golden pairs of a model that is served; 0: it has none, its check at start was skipped, and no drift is measured.",
    model=_OPEN,
    digest=_OPEN,
)
TOLERANCE = _gauge("rerank_golden_tolerance_logits", "How far a golden pair may be off.", model=_OPEN, digest=_OPEN)
MODEL = _gauge(
    "rerank_model_info",
    "1 for each model that a worker serves; `version` is what a registry lists it under.",
    model=_OPEN,
    digest=_OPEN,
    version=_OPEN,
    engine=_OPEN,
    dtype=_OPEN,
    device=_OPEN,
)

# -- scores, by the model that they are of ----------------------------------------------------------------------------------

SCORE_METRICS = ScoreMetrics()
LABELS |= {
    "rerank_relevance_score": {"digest": _OPEN},
    "rerank_pairs_total": {"digest": _OPEN, "result": RESULTS},
    "rerank_truncated_pairs_total": {"digest": _OPEN},
}
REGISTRY.register(SCORE_METRICS)

# -- the process ----------------------------------------------------------------------------------------------------------

LOOP_LAG_SECONDS = _histogram(
    "rerank_event_loop_lag_seconds", "How late the event loop was when it was to wake up.", _SHORT_SECONDS
)
FILE_READABLE = _gauge(
    "rerank_file_readable",
    "1 while a file that the settings name can be used, 0 where it cannot.",
    file=("api_keys", "redis_ca", "redis_certificate", "redis_password"),
)
TRACE_SPANS = _counter(
    "rerank_trace_spans_total", "Spans that ended, that were sent, and that were lost.", outcome=("ended", "sent", "lost")
)
BUILD = _gauge(
    "rerank_build_info", "1 for the version that runs, and as what.", version=_OPEN, role=("gateway", "worker", "serve")
)
