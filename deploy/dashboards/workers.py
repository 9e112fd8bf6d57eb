"""Workers: utilisation, saturation, errors, the engine's caches, and the models served."""

from __future__ import annotations

from deploy.dashboards.engines import GPU, VLLM
from deploy.dashboards.pages import Dashboard, Panel, Query, Row
from deploy.dashboards.promql import WINDOW, mean, quantile, rate, ratio, series, total
from deploy.dashboards.variables import MODEL, targets

_MODEL = 'model=~"$model"'
_FULL = 'reason="worker_full"'
_HIT = 'result="hit"'


def _of_gateways(metric: str, by: str) -> str:
    """The increase per second of a gateway's metric; the selected jobs are those of workers."""
    return f'sum by ({by}) (rate({metric}{{namespace=~"$namespace"}}[{WINDOW}]))'


UTILISATION = Row(
    "Utilisation",
    [
        Panel(
            "Tokens per second",
            "Prompt tokens of scored pairs: computed, or reused from a prefix that several "
            "pairs share.",
            [Query(total("rerank_engine_prompt_tokens_total", by="source"), "{{source}}")],
            unit="si:tok/s",
            stacked=True,
        ),
        Panel(
            "Tokens per second by worker",
            "Equal workers should be equally busy; affinity routing allows some difference.",
            [Query(total("rerank_engine_prompt_tokens_total", by="pod"), "{{pod}}")],
            unit="si:tok/s",
        ),
        Panel(
            "Batch fill",
            "Share of a forward pass's token budget that is used, mean by worker. Low values "
            "beside a queue mean that preparing pairs is too slow.",
            [Query(mean("rerank_batch_fill_ratio", by="pod"), "{{pod}}")],
            unit="percentunit",
            maximum=1,
        ),
        Panel(
            "Batch size",
            "Pairs in a forward pass, mean by worker.",
            [Query(mean("rerank_batch_pairs", by="pod"), "{{pod}}")],
        ),
        Panel(
            "Tokens per forward pass",
            "Forward passes per second by number of tokens.",
            [Query(total("rerank_batch_tokens_bucket", by="le"), "{{le}}")],
            kind="heatmap",
        ),
        Panel(
            "Forward passes",
            "Per second, by worker. None while pairs are in flight means that the engine is stuck.",
            [Query(total("rerank_engine_steps_total", by="pod"), "{{pod}}")],
            unit="ops",
        ),
    ],
)
SATURATION = Row(
    "Saturation",
    [
        Panel(
            "Calls in flight, share of the limit",
            "At its limit a worker answers further calls with overloaded, and the gateway calls"
            " another one.",
            [
                Query(
                    ratio(
                        series("rerank_engine_calls_in_flight"),
                        series("rerank_engine_calls_limit"),
                    ),
                    "{{pod}}",
                )
            ],
            unit="percentunit",
        ),
        Panel(
            "Pairs in the engine",
            "Accepted and not scored yet: the queue to scale by.",
            [Query(series("rerank_engine_pairs_in_flight"), "{{pod}}")],
        ),
        Panel(
            "Wait for the engine",
            "p50 and p99 of the time until the engine begins with a call's first pair.",
            [
                Query(quantile(share, "rerank_stage_duration_seconds", 'stage="queue"'), name)
                for share, name in ((0.5, "p50"), (0.99, "p99"))
            ],
            unit="s",
        ),
        Panel(
            "Time without progress",
            "Time for which an engine has had work without completing any. At "
            "RERANK_STALL_SECONDS (60) Kubernetes restarts the worker.",
            [Query(series("rerank_engine_stalled_seconds"), "{{pod}}")],
            unit="s",
            thresholds=[(45, "red")],
            threshold_lines=True,
        ),
        Panel(
            "CPU",
            "Cores that a process uses. With a GPU, a worker at one full core prepares batches "
            "too slowly.",
            [Query(rate("process_cpu_seconds_total"), "{{pod}}")],
            unit="none",
        ),
        Panel(
            "Memory",
            "Resident memory of the process.",
            [Query(series("process_resident_memory_bytes"), "{{pod}}")],
            unit="bytes",
        ),
    ],
)
ERRORS = Row(
    "Errors",
    [
        Panel(
            "Calls by outcome",
            "As counted by all gateways of the namespace. cancelled: the client disconnected, "
            "or the deadline passed.",
            [Query(_of_gateways("rerank_worker_calls_total", "outcome"), "{{outcome}}")],
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Retries and hedges",
            "retry: a call failed. hedge: a call took long. denied: the retry budget was spent.",
            [Query(_of_gateways("rerank_worker_extra_calls_total", "kind"), "{{kind}}")],
            unit="reqps",
        ),
        Panel(
            "Refused by workers",
            "Calls over the limit, and pairs that made the network fail, each of which is "
            "refused alone.",
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
            "Tokens reused from the prefix cache",
            "Share of prompt tokens that the engine had computed for an earlier pair with the "
            "same prefix: the query or, of models whose prompts begin with it, the document.",
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
            maximum=1,
        ),
        Panel(
            "Image embeddings reused",
            "Share of the pairs' images whose embeddings the engine still had.",
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
            maximum=1,
        ),
    ],
)
MODELS = Row(
    "Models",
    [
        Panel(
            "Served models",
            "Models and engines by worker. `gmr models list` shows the versions; the digest "
            "also covers the engine.",
            [Query(series("rerank_model_info", _MODEL))],
            kind="table",
            width=16,
            minimum=None,
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
            "From the start until the golden pairs were scored: the time that a new worker "
            "needs to become ready.",
            [Query(series("rerank_model_load_seconds"), "{{pod}}")],
            unit="s",
        ),
    ],
)
DASHBOARD = Dashboard(
    "workers",
    "gmr-rerank / Workers",
    __doc__,
    [*targets("worker"), MODEL],
    [UTILISATION, SATURATION, ERRORS, CACHES, MODELS, VLLM, GPU],
)
