"""Overview: rate, errors and duration of requests, service level objectives, and the cache."""

from __future__ import annotations

from deploy.dashboards.cache import CACHE
from deploy.dashboards.pages import Dashboard, Panel, Query, Row
from deploy.dashboards.promql import occurring, quantile, ratio, series, total
from deploy.dashboards.variables import targets

_RERANK, _FAILED = 'dialect!~"none|worker"', 'status=~"5.."'
_REQUESTS = "rerank_request_duration_seconds"
_COUNT = f"{_REQUESTS}_count"
_READY = 'state="ready"'
_AVAILABLE, _FAST = "rerank:slo_availability:objective", "rerank:slo_latency:objective"
_OK, _WARN, _BAD = "green", "orange", "red"


def _recorded(recorded: str) -> str:
    """A selector of a recorded series, which has no pod."""
    return f'{recorded}{{namespace=~"$namespace", job=~"$job"}}'


def _burn(ratio_: str, objective: str) -> str:
    return f"{_recorded(ratio_)} / on () group_left () (1 - {objective})"


def _budget_left(bad: str, whole: str, objective: str) -> str:
    """The share of 30 days' budget that is left, for all selected jobs together; at least -1."""
    gone = " / ".join(f"sum(avg_over_time({_recorded(name)}[30d]))" for name in (bad, whole))
    return f"clamp_min(1 - {gone} / on () (1 - {objective}), -1)"


NOW = Row(
    "Now",
    [
        Panel(
            "Requests",
            "Rerank requests per second, whatever their result.",
            [Query(total(_COUNT, _RERANK))],
            unit="reqps",
            kind="stat",
            width=4,
            height=4,
            base_color="text",
        ),
        Panel(
            "Error rate",
            "Share of rerank requests that ended with a 5xx status.",
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
            thresholds=[(0.001, _WARN), (0.0144, _BAD)],
        ),
        Panel(
            "p99",
            "99 % of answered requests, of all sizes, were faster.",
            [Query(quantile(0.99, "rerank_scoring_duration_seconds"))],
            unit="s",
            kind="stat",
            width=4,
            height=4,
            thresholds=[(1, _WARN), (2.5, _BAD)],
        ),
        Panel(
            "Ready workers",
            "Of the gateway that has the fewest.",
            [Query(f"min({series('rerank_workers', _READY)})")],
            kind="stat",
            width=4,
            height=4,
            base_color=_BAD,
            thresholds=[(1, _OK)],
        ),
        Panel(
            "Cached pairs",
            "Share of pairs whose score was cached, or was being computed for another request.",
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
            base_color="text",
        ),
        Panel(
            "Requests shed",
            "Requests per second that were turned away, because of load or without a ready worker.",
            [Query(total("rerank_shed_total"))],
            unit="reqps",
            kind="stat",
            width=4,
            height=4,
            thresholds=[(0.01, _WARN), (1, _BAD)],
        ),
    ],
)
PROMISES = Row(
    "Service level objectives",
    [
        Panel(
            "Availability: budget burn",
            "How many times too fast the error budget is used up: at 1 it lasts its 30 days. "
            "Alerts page at 14.4 (1 h) and 6 (6 h).",
            [
                Query(
                    _burn(f"job:rerank_requests_failed:ratio_rate{window}", _AVAILABLE),
                    f"{{{{job}}}} {window}",
                )
                for window in ("5m", "1h", "6h", "3d")
            ],
            unit="none",
            width=9,
            thresholds=[(1, "yellow"), (6, _WARN), (14.4, _BAD)],
            threshold_lines=True,
            log_scale=True,
        ),
        Panel(
            "Latency: budget burn",
            "The same for answers (of up to 100 documents) that took longer than the "
            "objective's threshold.",
            [
                Query(
                    _burn(f"job:rerank_answers_slow:ratio_rate{window}", _FAST),
                    f"{{{{job}}}} {window}",
                )
                for window in ("5m", "1h", "6h", "3d")
            ],
            unit="none",
            width=9,
            thresholds=[(1, "yellow"), (6, _WARN), (14.4, _BAD)],
            threshold_lines=True,
            log_scale=True,
        ),
        Panel(
            "Objectives",
            "The objectives of deploy/alerts/slo.yaml.",
            [Query(_AVAILABLE, "availability"), Query(_FAST, "latency")],
            unit="percentunit",
            kind="stat",
            width=3,
            decimals=1,
            base_color="text",
        ),
        Panel(
            "Budget left",
            "Share of the error budget of 30 days (or of the time that Prometheus keeps) that "
            "is left; below 0 it is overspent.",
            [
                Query(
                    _budget_left(
                        "job:rerank_requests_failed:rate5m",
                        "job:rerank_requests:rate5m",
                        _AVAILABLE,
                    ),
                    "availability",
                ),
                Query(
                    _budget_left(
                        "job:rerank_answers_slow:rate5m", "job:rerank_answers:rate5m", _FAST
                    ),
                    "latency",
                ),
            ],
            unit="percentunit",
            kind="stat",
            width=3,
            decimals=0,
            minimum=None,
            base_color=_BAD,
            thresholds=[(0, _WARN), (0.5, _OK)],
        ),
    ],
)
REQUESTS = Row(
    "Requests",
    [
        Panel(
            "Rate by route and dialect",
            "Rerank requests per second.",
            [Query(total(_COUNT, _RERANK, by="route, dialect"), "{{route}} {{dialect}}")],
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Error rate by route and dialect",
            "Share of rerank requests that ended with a 5xx status.",
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
            "Of answers with status 200.",
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
            "499: the client disconnected before the answer.",
            [Query(total(_COUNT, _RERANK, by="status"), "{{status}}")],
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Errors by code",
            "Errors of requests and, with on_error=skip, of single documents. docs/api.md "
            "explains the codes.",
            [Query(occurring("rerank_errors_total", "code"), "{{code}}")],
            unit="si:err/s",
        ),
        Panel(
            "Requests shed by reason",
            "queue_full, expected_wait, queue_timeout: more load than capacity. deadline: the"
            " request's own deadline passed while it was queued.",
            [Query(occurring("rerank_shed_total", "reason"), "{{reason}}")],
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "In flight and queued",
            "Requests that are being answered, and those in the admission queue; beyond its limit"
            " requests are turned away.",
            [
                Query(f"sum({series('rerank_requests_in_flight')})", "in flight"),
                Query(f"sum({series('rerank_requests_queued')})", "queued"),
                Query(f"sum({series('rerank_requests_queued_limit')})", "queue limit"),
            ],
        ),
        Panel(
            "Admitted work",
            "Estimated prompt tokens of admitted requests, as a share of the capacity: the "
            "gateway's saturation. Few large requests can exceed 100 %.",
            [
                Query(
                    ratio(series("rerank_admitted_tokens"), series("rerank_capacity_tokens")),
                    "{{pod}}",
                ),
            ],
            unit="percentunit",
        ),
        Panel(
            "Workers by state",
            "ready: get calls. unresponsive: miss probes. circuit_open: fail too often, get no"
            " calls for a while. unready: report it, or cannot be reached.",
            [Query(f"max by (state) ({series('rerank_workers')})", "{{state}}")],
        ),
    ],
)
DASHBOARD = Dashboard(
    "overview",
    "gmr-rerank / Overview",
    __doc__,
    targets("gateway"),
    [NOW, PROMISES, REQUESTS, CACHE],
)
