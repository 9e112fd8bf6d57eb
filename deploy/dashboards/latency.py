"""Latency: where a request's time goes, by stage, by how much is asked, and of what kind."""

from __future__ import annotations

from deploy.dashboards.pages import Dashboard, Panel, Query, Row
from deploy.dashboards.promql import mean, quantile, ratio, total
from deploy.dashboards.variables import places

_SCORING = "rerank_scoring_duration_seconds"
_STAGE = "rerank_stage_duration_seconds"
_IN_ORDER = ("admit", "parse", "media", "cache_get", "score", "cache_set", "order")
_PERCENTILES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
_CALLS = "rerank_worker_call_duration_seconds"


def _stage(name: str) -> str:
    """A stage's matcher."""
    return f'stage="{name}"'


def _percentiles(histogram: str, *matchers: str) -> list[Query]:
    return [
        Query(quantile(share, histogram, *matchers), name, exemplars=share > 0.9)
        for share, name in _PERCENTILES
    ]


REQUESTS = Row(
    "Answered requests",
    [
        Panel(
            "p50, p95, p99",
            "From a request's arrival until its documents are ranked. Dots lead to traces where"
            " Prometheus keeps exemplars.",
            _percentiles(_SCORING),
            unit="s",
            width=12,
            height=9,
            steps=[(1, "red")],
            limit=True,
        ),
        Panel(
            "Heat map",
            "How many requests took how long: two bands are two kinds of request, cached and"
            " scored, or text and image.",
            [Query(total(f"{_SCORING}_bucket", by="le"), "{{le}}")],
            unit="s",
            kind="heatmap",
            width=12,
            height=9,
        ),
    ],
)
STAGES = Row(
    "Where the time goes",
    [
        Panel(
            "Mean time by stage, one above the other",
            "A mean request: the stages follow each other, so their sum is its time. admit waits"
            " for room, score for workers.",
            [
                Query(ratio(total(f"{_STAGE}_sum", _stage(name)), total(f"{_SCORING}_count")), name)
                for name in _IN_ORDER
            ],
            unit="s",
            width=12,
            height=9,
            stacked=True,
        ),
        Panel(
            "p99 by stage",
            "Each stage's own; they do not add up.",
            [Query(quantile(0.99, _STAGE, _stage(name)), name) for name in _IN_ORDER],
            unit="s",
            width=12,
            height=9,
        ),
        Panel(
            "Within media and score",
            "Mean, of requests that have the stage. fetch: image URLs; decode: images, before their"
            " pairs are sent to workers.",
            [Query(mean(_STAGE, 'stage=~"fetch|decode"', by="stage"), "{{stage}}")],
            unit="s",
        ),
        Panel(
            "A call to a worker",
            "As the gateway waits for it, the network included.",
            _percentiles(_CALLS),
            unit="s",
        ),
        Panel(
            "In the worker: queue and engine",
            "p50 and p99. queue: until its first pair is begun; engine: until its last is scored.",
            [
                Query(
                    quantile(share, _STAGE, 'stage=~"queue|engine"', by="stage"),
                    f"{{{{stage}}}} {name}",
                )
                for share, name in ((0.5, "p50"), (0.99, "p99"))
            ],
            unit="s",
        ),
    ],
)
KINDS = Row(
    "By what is asked",
    [
        Panel(
            f"{name} by number of documents",
            "Of answered requests, whatever was cached.",
            [Query(quantile(share, _SCORING, by="documents"), "{{documents}}")],
            unit="s",
        )
        for share, name in _PERCENTILES
    ]
    + [
        Panel(
            f"{name} by modality",
            "image: every item is an image. mixed: some are, or have both.",
            [Query(quantile(share, _SCORING, by="modality"), "{{modality}}")],
            unit="s",
        )
        for share, name in _PERCENTILES
    ],
)
SIZES = Row(
    "How much is asked",
    [
        Panel(
            "Requests by documents and modality",
            "The mix that all the times above are of.",
            [
                Query(
                    total(f"{_SCORING}_count", by="documents, modality"),
                    "{{documents}} {{modality}}",
                )
            ],
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Documents of a request",
            "Median, p95, and mean.",
            [
                Query(quantile(0.5, "rerank_request_documents"), "p50"),
                Query(quantile(0.95, "rerank_request_documents"), "p95"),
                Query(mean("rerank_request_documents"), "mean"),
            ],
        ),
        Panel(
            "Images of a request",
            "Mean, and images decoded a second: what is cached is not decoded.",
            [
                Query(mean("rerank_request_images"), "of a request"),
                Query(total("rerank_images_total"), "decoded a second"),
            ],
        ),
        Panel(
            "Prompt tokens by where they came from",
            "computed: by the engine. prefix: reused by it, of equal beginnings. cached: of pairs"
            " whose score was known.",
            [Query(total("rerank_prompt_tokens_total", by="source"), "{{source}}")],
            unit="si:tok/s",
            stacked=True,
        ),
        Panel(
            "Workers that a request is split over",
            "Mean, and how many calls a second are second attempts (retry, hedge) or were denied"
            " one.",
            [
                Query(mean("rerank_request_workers"), "workers"),
                Query(
                    f"{total('rerank_worker_extra_calls_total', by='kind')} > 0",
                    "{{kind}} a second",
                ),
            ],
        ),
        Panel(
            "Event loop lag",
            "p99 of how late the loop wakes up: time that every request in that process loses.",
            [Query(quantile(0.99, "rerank_event_loop_lag_seconds", by="pod"), "{{pod}}")],
            unit="s",
        ),
    ],
)

DASHBOARD = Dashboard(
    "latency",
    "gmr-rerank / Latency",
    __doc__,
    places("gateway|worker"),
    [REQUESTS, STAGES, KINDS, SIZES],
)
