"""Latency: the time of requests by stage, by number of documents, and by modality."""

from __future__ import annotations

from deploy.dashboards.pages import Dashboard, Panel, Query, Row
from deploy.dashboards.promql import mean, quantile, ratio, total
from deploy.dashboards.variables import targets

_SCORING = "rerank_scoring_duration_seconds"
_STAGE = "rerank_stage_duration_seconds"
_IN_ORDER = ("admit", "parse", "media", "cache_get", "score", "cache_set", "order")
_PERCENTILES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
_CALLS = "rerank_worker_call_duration_seconds"


def _stage(name: str) -> str:
    """The label matcher of a stage."""
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
            "From a request's arrival until its documents are ranked. Dots are exemplars, which"
            " link to traces.",
            _percentiles(_SCORING),
            unit="s",
            width=12,
            height=9,
            thresholds=[(1, "red")],
            threshold_lines=True,
        ),
        Panel(
            "Heat map",
            "Number of requests by duration. Two bands are two kinds of request: cached and "
            "scored, or text and image.",
            [Query(total(f"{_SCORING}_bucket", by="le"), "{{le}}")],
            unit="s",
            kind="heatmap",
            width=12,
            height=9,
        ),
    ],
)
STAGES = Row(
    "Stages",
    [
        Panel(
            "Mean time by stage, stacked",
            "The stages follow each other, so their sum is the time of a mean request. admit "
            "waits for capacity, score for workers.",
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
            "Of each stage by itself; the values do not add up.",
            [Query(quantile(0.99, _STAGE, _stage(name)), name) for name in _IN_ORDER],
            unit="s",
            width=12,
            height=9,
        ),
        Panel(
            "Parts of media and score",
            "Mean over the requests that have the stage. fetch: image URLs; decode: images, "
            "before their pairs are sent to workers.",
            [Query(mean(_STAGE, 'stage=~"fetch|decode"', by="stage"), "{{stage}}")],
            unit="s",
        ),
        Panel(
            "Calls to workers",
            "As the gateway measures them, network included.",
            _percentiles(_CALLS),
            unit="s",
        ),
        Panel(
            "In the worker: queue and engine",
            "p50 and p99. queue: until the engine begins with the call's first pair; engine: "
            "from then until its last pair is scored.",
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
    "By documents and modality",
    [
        Panel(
            f"{name} by number of documents",
            "Of answered requests, cached pairs included.",
            [Query(quantile(share, _SCORING, by="documents"), "{{documents}}")],
            unit="s",
        )
        for share, name in _PERCENTILES
    ]
    + [
        Panel(
            f"{name} by modality",
            "image: every document is an image. mixed: some are, or have a text, too.",
            [Query(quantile(share, _SCORING, by="modality"), "{{modality}}")],
            unit="s",
        )
        for share, name in _PERCENTILES
    ],
)
SIZES = Row(
    "Load",
    [
        Panel(
            "Requests by documents and modality",
            "Answered requests per second: the mix behind the durations above.",
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
            "Documents per request",
            "Median, p95 and mean.",
            [
                Query(quantile(0.5, "rerank_request_documents"), "p50"),
                Query(quantile(0.95, "rerank_request_documents"), "p95"),
                Query(mean("rerank_request_documents"), "mean"),
            ],
        ),
        Panel(
            "Images per request",
            "Mean, and images decoded per second; images of cached pairs are not decoded.",
            [
                Query(mean("rerank_request_images"), "per request"),
                Query(total("rerank_images_total"), "decoded per second"),
            ],
        ),
        Panel(
            "Prompt tokens by source",
            "computed: by the engine. prefix: reused from the engine's prefix cache. cached: of"
            " pairs whose score was cached.",
            [Query(total("rerank_prompt_tokens_total", by="source"), "{{source}}")],
            unit="si:tok/s",
            stacked=True,
        ),
        Panel(
            "Workers per request",
            "Mean; and retries, hedges, and those denied by the retry budget, per second.",
            [
                Query(mean("rerank_request_workers"), "workers"),
                Query(
                    f"{total('rerank_worker_extra_calls_total', by='kind')} > 0",
                    "{{kind}} per second",
                ),
            ],
        ),
        Panel(
            "Event loop lag",
            "p99 of the event loop's delay, which every request of that process loses.",
            [Query(quantile(0.99, "rerank_event_loop_lag_seconds", by="pod"), "{{pod}}")],
            unit="s",
        ),
    ],
)

DASHBOARD = Dashboard(
    "latency",
    "gmr-rerank / Latency",
    __doc__,
    targets("gateway|worker"),
    [REQUESTS, STAGES, KINDS, SIZES],
)
