"""Overview: is the service well, and what does it promise? Rate, errors, duration, SLOs, cache."""

from __future__ import annotations

from deploy.dashboards.cache import CACHE
from deploy.dashboards.pages import Dashboard, Panel, Query, Row
from deploy.dashboards.promql import of, quantile, ratio, seen, total
from deploy.dashboards.variables import places

_RERANK, _FAILED = 'dialect!~"none|worker"', 'status=~"5.."'
_REQUESTS = "rerank_request_duration_seconds"
_COUNT = f"{_REQUESTS}_count"
_READY = 'state="ready"'
_AVAILABLE, _FAST = "rerank:slo_availability:objective", "rerank:slo_latency:objective"
_OK, _WARN, _BAD = "green", "orange", "red"


def _chosen(recorded: str) -> str:
    """A recorded series: it has no pod."""
    return f'{recorded}{{namespace=~"$namespace", job=~"$job"}}'


def _burn(ratio_: str, objective: str) -> str:
    return f"{_chosen(ratio_)} / on () group_left () (1 - {objective})"


def _left(bad: str, whole: str, objective: str) -> str:
    """What of 30 days' budget is left, all chosen jobs together; no less than -1."""
    gone = " / ".join(f"sum(avg_over_time({_chosen(recorded)}[30d]))" for recorded in (bad, whole))
    return f"clamp_min(1 - {gone} / on () (1 - {objective}), -1)"


NOW = Row(
    "Now",
    [
        Panel(
            "Requests",
            "Rerank requests a second, however they end.",
            [Query(total(_COUNT, _RERANK))],
            unit="reqps",
            kind="stat",
            width=4,
            height=4,
            base="text",
        ),
        Panel(
            "Failing",
            "Share of rerank requests that end with 5xx.",
            [
                Query(
                    ratio(
                        f"({total(_COUNT, _RERANK, _FAILED)} or vector(0))", total(_COUNT, _RERANK)
                    )
                )
            ],
            unit="percentunit",
            kind="stat",
            width=4,
            height=4,
            decimals=2,
            steps=[(0.001, _WARN), (0.0144, _BAD)],
        ),
        Panel(
            "p99",
            "99 % of answered requests are faster, all sizes together.",
            [Query(quantile(0.99, "rerank_scoring_duration_seconds"))],
            unit="s",
            kind="stat",
            width=4,
            height=4,
            steps=[(1, _WARN), (2.5, _BAD)],
        ),
        Panel(
            "Ready workers",
            "Fewest that any gateway has.",
            [Query(f"min({of('rerank_workers', _READY)})")],
            kind="stat",
            width=4,
            height=4,
            base=_BAD,
            steps=[(1, _OK)],
        ),
        Panel(
            "Known pairs",
            "Share of pairs whose score was in the cache, or under way for another request.",
            [
                Query(
                    ratio(
                        total("rerank_pairs_total", 'result="cached"'), total("rerank_pairs_total")
                    )
                )
            ],
            unit="percentunit",
            kind="stat",
            width=4,
            height=4,
            decimals=0,
            base="text",
        ),
        Panel(
            "Turned away",
            "Requests a second that found no room or no worker.",
            [Query(total("rerank_shed_total"))],
            unit="reqps",
            kind="stat",
            width=4,
            height=4,
            steps=[(0.01, _WARN), (1, _BAD)],
        ),
    ],
)
PROMISES = Row(
    "What is promised",
    [
        Panel(
            "Availability: budget burn",
            "How many times too fast the error budget is used up; at 1 it lasts its 30 days. Pages"
            " at 14.4 (1 h) and 6 (6 h).",
            [
                Query(
                    _burn(f"job:rerank_requests_failed:ratio_rate{window}", _AVAILABLE),
                    f"{{{{job}}}} {window}",
                )
                for window in ("5m", "1h", "6h", "3d")
            ],
            unit="none",
            width=9,
            steps=[(1, "yellow"), (6, _WARN), (14.4, _BAD)],
            limit=True,
            log=True,
        ),
        Panel(
            "Latency: budget burn",
            "The same of answers (up to 100 documents) that took longer than the SLO's threshold.",
            [
                Query(
                    _burn(f"job:rerank_answers_slow:ratio_rate{window}", _FAST),
                    f"{{{{job}}}} {window}",
                )
                for window in ("5m", "1h", "6h", "3d")
            ],
            unit="none",
            width=9,
            steps=[(1, "yellow"), (6, _WARN), (14.4, _BAD)],
            limit=True,
            log=True,
        ),
        Panel(
            "Promised",
            "The objectives, as deploy/alerts/slo.yaml says.",
            [Query(_AVAILABLE, "available"), Query(_FAST, "fast enough")],
            unit="percentunit",
            kind="stat",
            width=3,
            decimals=1,
            base="text",
        ),
        Panel(
            "Budget left",
            "Share of the error budget of 30 days (or as many as Prometheus keeps) that is left;"
            " below 0 it is overspent.",
            [
                Query(
                    _left(
                        "job:rerank_requests_failed:rate5m",
                        "job:rerank_requests:rate5m",
                        _AVAILABLE,
                    ),
                    "available",
                ),
                Query(
                    _left("job:rerank_answers_slow:rate5m", "job:rerank_answers:rate5m", _FAST),
                    "fast enough",
                ),
            ],
            unit="percentunit",
            kind="stat",
            width=3,
            decimals=0,
            low=None,
            base=_BAD,
            steps=[(0, _WARN), (0.5, _OK)],
        ),
    ],
)
REQUESTS = Row(
    "Requests",
    [
        Panel(
            "Rate by route and dialect",
            "Rerank requests a second.",
            [Query(total(_COUNT, _RERANK, by="route, dialect"), "{{route}} {{dialect}}")],
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Failing, by route and dialect",
            "Share of rerank requests that end with 5xx.",
            [
                Query(
                    ratio(
                        total(_COUNT, _RERANK, _FAILED, by="route, dialect"),
                        total(_COUNT, _RERANK, by="route, dialect"),
                    ),
                    "{{route}} {{dialect}}",
                )
            ],
            unit="percentunit",
        ),
        Panel(
            "p99 by route and dialect",
            "Of good answers.",
            [
                Query(
                    quantile(0.99, _REQUESTS, _RERANK, 'status="200"', by="route, dialect"),
                    "{{route}} {{dialect}}",
                    exemplars=True,
                )
            ],
            unit="s",
        ),
        Panel(
            "Answers by status",
            "499: the client left before.",
            [Query(total(_COUNT, _RERANK, by="status"), "{{status}}")],
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Errors by code",
            "Of requests and, with on_error=skip, of single documents. The codes are explained in"
            " the API's documentation.",
            [Query(seen("rerank_errors_total", "code"), "{{code}}")],
            unit="si:err/s",
        ),
        Panel(
            "Turned away, by reason",
            "queue_full, expected_wait, queue_timeout: more load than capacity. deadline: the"
            " request's own deadline passed while it was queued.",
            [Query(seen("rerank_shed_total", "reason"), "{{reason}}")],
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "In flight and queued",
            "Requests that are being answered, and those in the admission queue; beyond its limit"
            " requests are turned away.",
            [
                Query(f"sum({of('rerank_requests_in_flight')})", "in flight"),
                Query(f"sum({of('rerank_requests_queued')})", "queued"),
                Query(f"sum({of('rerank_requests_queued_limit')})", "queue limit"),
            ],
        ),
        Panel(
            "Admitted work",
            "Estimated prompt tokens inside, of what may be: the gateway's saturation. Above 100 %"
            " where large requests are few.",
            [
                Query(ratio(of("rerank_admitted_tokens"), of("rerank_capacity_tokens")), "{{pod}}"),
            ],
            unit="percentunit",
        ),
        Panel(
            "Workers as gateways see them",
            "ready: get calls. unresponsive: miss probes. circuit_open: fail too often, get no"
            " calls for a while. unready: report it, or cannot be reached.",
            [Query(f"max by (state) ({of('rerank_workers')})", "{{state}}")],
        ),
    ],
)
DASHBOARD = Dashboard(
    "overview",
    "gmr-rerank / Overview",
    __doc__,
    places("gateway"),
    [NOW, PROMISES, REQUESTS, CACHE],
)
