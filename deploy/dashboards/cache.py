"""The row of the score cache: hits, the latency of Redis, and failed calls."""

from __future__ import annotations

from deploy.dashboards.pages import Panel, Query, Row
from deploy.dashboards.promql import occurring, quantile, ratio, series, total

CACHE = Row(
    "Score cache",
    [
        Panel(
            "Pairs by result",
            "computed: scored by a worker. cached: in the cache, or being scored for another "
            "request. refused and failed: no score.",
            [Query(total("rerank_pairs_total", by="result"), "{{result}}")],
            unit="si:pairs/s",
            stacked=True,
        ),
        Panel(
            "Hits by tier",
            "Share of the lookups in each tier. Only pairs that memory does not have are looked"
            " up in Redis.",
            [
                Query(
                    ratio(
                        total("rerank_cache_lookups_total", 'result="hit"', by="tier"),
                        total("rerank_cache_lookups_total", by="tier"),
                    ),
                    "{{tier}}",
                )
            ],
            unit="percentunit",
            maximum=1,
        ),
        Panel(
            "Redis: p50 and p99",
            "Time that a request waits for a call, at most RERANK_REDIS_TIMEOUT_MS.",
            [
                Query(
                    quantile(share, "rerank_cache_call_duration_seconds", by="operation"),
                    f"{{{{operation}}}} {name}",
                )
                for share, name in ((0.5, "p50"), (0.99, "p99"))
            ],
            unit="s",
        ),
        Panel(
            "Redis: failed and skipped calls",
            "Failed calls by kind, skipped calls by reason (circuit_open, backlog). Each is a "
            "cache miss, not an error.",
            [
                Query(
                    occurring("rerank_cache_failures_total", "operation, kind"),
                    "{{operation}} {{kind}}",
                ),
                Query(
                    occurring("rerank_cache_skipped_total", "operation, reason"),
                    "{{operation}} skipped: {{reason}}",
                ),
            ],
            unit="si:calls/s",
        ),
        Panel(
            "Redis: circuit breaker",
            "0 closed, 1 half open (one trial call), 2 open (no calls).",
            [
                Query(
                    f"max by (operation, pod) ({series('rerank_cache_circuit_state')})",
                    "{{pod}} {{operation}}",
                )
            ],
            maximum=2,
            value_names={"0": "closed", "1": "half open", "2": "open"},
        ),
        Panel(
            "Memory tier",
            "Share of its size that is used. A full tier is normal.",
            [
                Query(
                    ratio(
                        series("rerank_cache_memory_bytes"),
                        series("rerank_cache_memory_limit_bytes"),
                    ),
                    "{{pod}}",
                )
            ],
            unit="percentunit",
            maximum=1,
        ),
    ],
)
