"""The rows of what others measure: vLLM's own metrics, which workers export as they are, and
NVIDIA's of the GPU."""

from __future__ import annotations

from deploy.dashboards.pages import Panel, Query, Row
from deploy.dashboards.promql import of, ratio, total

_GPU = 'namespace=~"$namespace", pod=~"$pod"'


def _gpu(metric: str, *, by: str = "avg by (pod, gpu)") -> list[Query]:
    """A metric of the GPUs that the chosen pods have; DCGM's exporter names them as our own series
    do."""
    return [Query(f"{by} ({metric}{{{_GPU}}})", "{{pod}} GPU {{gpu}}")]


def _vllm_share(what: str) -> list[Query]:
    return [
        Query(
            ratio(
                total(f"vllm:{what}_hits_total", by="pod"),
                total(f"vllm:{what}_queries_total", by="pod"),
            ),
            "{{pod}}",
        )
    ]


VLLM = Row(
    "vLLM",
    [
        Panel(
            "KV cache in use",
            "When it is full, pairs wait in the scheduler.",
            [Query(of("vllm:kv_cache_usage_perc"), "{{pod}}")],
            unit="percentunit",
            high=1,
            width=6,
            needs="vllm",
        ),
        Panel(
            "Running and waiting",
            "Pairs in its scheduler.",
            [
                Query(of("vllm:num_requests_running"), "{{pod}} running"),
                Query(of("vllm:num_requests_waiting"), "{{pod}} waiting"),
            ],
            width=6,
            needs="vllm",
        ),
        Panel(
            "Prefix cache hits",
            "Share of tokens looked up.",
            _vllm_share("prefix_cache"),
            unit="percentunit",
            high=1,
            width=6,
            needs="vllm",
        ),
        Panel(
            "Image cache hits",
            "Share of images looked up.",
            _vllm_share("mm_cache"),
            unit="percentunit",
            high=1,
            width=6,
            needs="vllm",
        ),
    ],
)
GPU = Row(
    "GPU",
    [
        Panel(
            "GPU busy",
            "Share of time in which a kernel ran; high even when it ran badly, see tensor cores.",
            _gpu("DCGM_FI_DEV_GPU_UTIL"),
            unit="percent",
            high=100,
            width=6,
            needs="dcgm",
        ),
        Panel(
            "Tensor cores busy",
            "Share of cycles. A reranker only prefills: this is what it is paid for.",
            _gpu("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),
            unit="percentunit",
            high=1,
            width=6,
            needs="dcgm",
        ),
        Panel(
            "GPU memory",
            "vLLM takes its share at start and keeps it; growth is something else.",
            [Query(f"{each.expr} * 1048576", each.legend) for each in _gpu("DCGM_FI_DEV_FB_USED")],
            unit="bytes",
            width=6,
            needs="dcgm",
        ),
        Panel(
            "GPU power and faults",
            "Watts, and the last XID error of the driver (0: none).",
            [
                *_gpu("DCGM_FI_DEV_POWER_USAGE"),
                *[
                    Query(f"{each.expr} > 0", f"{each.legend} XID")
                    for each in _gpu("DCGM_FI_DEV_XID_ERRORS", by="max by (pod, gpu)")
                ],
            ],
            unit="watt",
            width=6,
            needs="dcgm",
        ),
    ],
)
