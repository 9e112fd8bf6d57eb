"""Workers: how busy they are (utilisation), what waits (saturation), what fails (errors)."""

from __future__ import annotations

from deploy.dashboards.engines import GPU, VLLM
from deploy.dashboards.pages import Dashboard, Panel, Query, Row
from deploy.dashboards.promql import WINDOW, mean, of, quantile, rate, ratio, total
from deploy.dashboards.variables import MODEL, places

_MODEL = 'model=~"$model"'
_FULL = 'reason="worker_full"'
_HIT = 'result="hit"'


def _by_gateways(metric: str, by: str) -> str:
    """What gateways count: their jobs are not the workers' that are chosen."""
    return f'sum by ({by}) (rate({metric}{{namespace=~"$namespace"}}[{WINDOW}]))'


UTILISATION = Row(
    "Utilisation",
    [
        Panel(
            "Tokens a second",
            "Prompt tokens that engines get done: computed, or reused from a prefix that several"
            " pairs share.",
            [Query(total("rerank_engine_prompt_tokens_total", by="source"), "{{source}}")],
            unit="si:tok/s",
            stacked=True,
        ),
        Panel(
            "Tokens a second, by worker",
            "Equal workers should be equally busy; routing by query (affinity) is allowed some"
            " difference.",
            [Query(total("rerank_engine_prompt_tokens_total", by="pod"), "{{pod}}")],
            unit="si:tok/s",
        ),
        Panel(
            "Batch fill",
            "Share of a forward pass's token budget that is used: mean by worker. Low with a queue:"
            " preparing pairs is too slow.",
            [Query(mean("rerank_batch_fill_ratio", by="pod"), "{{pod}}")],
            unit="percentunit",
            high=1,
        ),
        Panel(
            "Batch size",
            "Pairs of a forward pass: mean by worker.",
            [Query(mean("rerank_batch_pairs", by="pod"), "{{pod}}")],
        ),
        Panel(
            "Tokens of a forward pass",
            "How many passes a second computed how many tokens.",
            [Query(total("rerank_batch_tokens_bucket", by="le"), "{{le}}")],
            kind="heatmap",
        ),
        Panel(
            "Forward passes",
            "A second, by worker. None while pairs are in flight: the engine is stuck.",
            [Query(total("rerank_engine_steps_total", by="pod"), "{{pod}}")],
            unit="ops",
        ),
    ],
)
SATURATION = Row(
    "Saturation",
    [
        Panel(
            "Calls in flight, of what is accepted",
            "Beyond the limit a worker refuses with overloaded, and the gateway asks another.",
            [
                Query(
                    ratio(of("rerank_engine_calls_in_flight"), of("rerank_engine_calls_limit")),
                    "{{pod}}",
                )
            ],
            unit="percentunit",
        ),
        Panel(
            "Pairs in the engine",
            "Accepted and not scored yet: the queue to scale by.",
            [Query(of("rerank_engine_pairs_in_flight"), "{{pod}}")],
        ),
        Panel(
            "Wait for the engine",
            "p50 and p99 of the time until a call's first pair is begun.",
            [
                Query(quantile(share, "rerank_stage_duration_seconds", 'stage="queue"'), name)
                for share, name in ((0.5, "p50"), (0.99, "p99"))
            ],
            unit="s",
        ),
        Panel(
            "Without progress",
            "How long an engine has had work and done none of it. The worker is started anew at"
            " RERANK_STALL_SECONDS (60).",
            [Query(of("rerank_engine_stalled_seconds"), "{{pod}}")],
            unit="s",
            steps=[(45, "red")],
            limit=True,
        ),
        Panel(
            "CPU",
            "Cores that a process uses. With a GPU, a worker at one full core prepares batches too"
            " slowly for it.",
            [Query(rate("process_cpu_seconds_total"), "{{pod}}")],
            unit="none",
        ),
        Panel(
            "Memory",
            "Resident, of the process.",
            [Query(of("process_resident_memory_bytes"), "{{pod}}")],
            unit="bytes",
        ),
    ],
)
ERRORS = Row(
    "Errors",
    [
        Panel(
            "Calls by outcome",
            "As all gateways of the namespace see them. cancelled: the client left, or its time was"
            " over.",
            [Query(_by_gateways("rerank_worker_calls_total", "outcome"), "{{outcome}}")],
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Second attempts",
            "retry: a call failed. hedge: it took long. denied: the budget for such calls was"
            " spent.",
            [Query(_by_gateways("rerank_worker_extra_calls_total", "kind"), "{{kind}}")],
            unit="reqps",
        ),
        Panel(
            "Refused here",
            "Calls beyond what a worker accepts, and pairs that make the network fail: each is"
            " found, and refused alone.",
            [
                Query(total("rerank_shed_total", _FULL, by="pod"), "{{pod}} calls"),
                Query(total("rerank_isolated_pairs_total", by="pod"), "{{pod}} pairs"),
            ],
            unit="cps",
        ),
    ],
)
CACHES = Row(
    "The engine's caches",
    [
        Panel(
            "Tokens reused by prefix",
            "Share of prompt tokens that the engine had computed for an earlier pair with the same"
            " beginning, such as its query.",
            [
                Query(
                    ratio(
                        total("rerank_engine_prompt_tokens_total", 'source="prefix"', by="pod"),
                        total("rerank_engine_prompt_tokens_total", by="pod"),
                    ),
                    "{{pod}}",
                )
            ],
            unit="percentunit",
            high=1,
        ),
        Panel(
            "Images that need no encoding",
            "Share of pairs' images whose embeddings the engine still had.",
            [
                Query(
                    ratio(
                        total("rerank_image_cache_lookups_total", _HIT, by="pod"),
                        total("rerank_image_cache_lookups_total", by="pod"),
                    ),
                    "{{pod}}",
                )
            ],
            unit="percentunit",
            high=1,
        ),
    ],
)
MODELS = Row(
    "Models",
    [
        Panel(
            "Served",
            "Which worker serves what, with which engine. `gmr models list` has the version; the"
            " digest covers the engine, too.",
            [Query(of("rerank_model_info", _MODEL))],
            kind="table",
            width=16,
            low=None,
            columns={
                "Pod": "pod",
                "Model": "model",
                "Version": "version",
                "Digest": "digest",
                "Engine": "engine",
                "Dtype": "dtype",
                "Device": "device",
            },
        ),
        Panel(
            "Time to load",
            "From the start until the golden pairs were scored: how long a new worker takes to"
            " help.",
            [Query(of("rerank_model_load_seconds"), "{{pod}}")],
            unit="s",
        ),
    ],
)
DASHBOARD = Dashboard(
    "workers",
    "gmr-rerank / Workers",
    __doc__,
    [*places("worker"), MODEL],
    [UTILISATION, SATURATION, ERRORS, CACHES, MODELS, VLLM, GPU],
)
