"""The row of the score cache: what it knows, how fast its Redis is, and what comes to nothing."""

from __future__ import annotations

from deploy.dashboards.pages import Panel, Query, Row
from deploy.dashboards.promql import of, quantile, ratio, seen, total

CACHE = Row(
    "Score cache",
    [
        Panel(
            "Pairs by where their score came from",
            "cached: known, or under way for another request. refused and failed: no score.",
            [Query(total("rerank_pairs_total", by="result"), "{{result}}")],
            unit="si:pairs/s",
            stacked=True,
        ),
        Panel(
            "Hits by tier",
            "Share of lookups in each tier; Redis is asked for what memory does not have.",
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
            high=1,
        ),
        Panel(
            "Redis: p50 and p99",
            "Time of a call as far as a request waits for it; it never waits longer than"
            " RERANK_REDIS_TIMEOUT_MS.",
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
            "Redis: calls that came to nothing",
            "Failed calls by kind, and skipped ones (circuit_open, backlog). Each counts as a miss,"
            " none as an error.",
            [
                Query(
                    seen("rerank_cache_failures_total", "operation, kind"), "{{operation}} {{kind}}"
                ),
                Query(
                    seen("rerank_cache_skipped_total", "operation, reason"),
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
                    f"max by (operation, pod) ({of('rerank_cache_circuit_state')})",
                    "{{pod}} {{operation}}",
                )
            ],
            high=2,
            words={"0": "closed", "1": "half open", "2": "open"},
        ),
        Panel(
            "Memory tier",
            "How full it is; full is good, as long as the hits are.",
            [
                Query(
                    ratio(of("rerank_cache_memory_bytes"), of("rerank_cache_memory_limit_bytes")),
                    "{{pod}}",
                )
            ],
            unit="percentunit",
            high=1,
        ),
    ],
)
