"""The rows of metrics that others define: vLLM's, which workers export unchanged, and those of
NVIDIA's DCGM exporter."""

from __future__ import annotations

from deploy.dashboards.pages import Panel, Query, Row
from deploy.dashboards.promql import ratio, series, total

_GPU = 'namespace=~"$namespace", pod=~"$pod"'


def _gpu(metric: str, *, by: str = "avg by (pod, gpu)") -> list[Query]:
    """A metric of the GPUs of the selected pods; the DCGM exporter labels its series with pods."""
    return [Query(f"{by} ({metric}{{{_GPU}}})", "{{pod}} GPU {{gpu}}")]


def _vllm_hits(cache: str) -> list[Query]:
    return [
        Query(
            ratio(
                total(f"vllm:{cache}_hits_total", by="pod"),
                total(f"vllm:{cache}_queries_total", by="pod"),
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
            [Query(series("vllm:kv_cache_usage_perc"), "{{pod}}")],
            unit="percentunit",
            maximum=1,
            width=6,
            exporter="vllm",
        ),
        Panel(
            "Running and waiting",
            "Pairs in vLLM's scheduler.",
            [
                Query(series("vllm:num_requests_running"), "{{pod}} running"),
                Query(series("vllm:num_requests_waiting"), "{{pod}} waiting"),
            ],
            width=6,
            exporter="vllm",
        ),
        Panel(
            "Prefix cache hits",
            "Share of the tokens that were looked up.",
            _vllm_hits("prefix_cache"),
            unit="percentunit",
            maximum=1,
            width=6,
            exporter="vllm",
        ),
        Panel(
            "Image cache hits",
            "Share of the images that were looked up.",
            _vllm_hits("mm_cache"),
            unit="percentunit",
            maximum=1,
            width=6,
            exporter="vllm",
        ),
    ],
)
GPU = Row(
    "GPU",
    [
        Panel(
            "GPU busy",
            "Share of the time in which a kernel ran, however well it used the GPU; compare the"
            " tensor cores.",
            _gpu("DCGM_FI_DEV_GPU_UTIL"),
            unit="percent",
            maximum=100,
            width=6,
            exporter="dcgm",
        ),
        Panel(
            "Tensor cores busy",
            "Share of cycles. A reranker only prefills, so this should be high.",
            _gpu("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),
            unit="percentunit",
            maximum=1,
            width=6,
            exporter="dcgm",
        ),
        Panel(
            "GPU memory",
            "vLLM allocates its share at start and keeps it; growth has another cause.",
            [
                Query(f"{query.expr} * 1048576", query.legend)
                for query in _gpu("DCGM_FI_DEV_FB_USED")
            ],
            unit="bytes",
            width=6,
            exporter="dcgm",
        ),
        Panel(
            "GPU power and faults",
            "Watts, and the driver's last XID error (0: none).",
            [
                *_gpu("DCGM_FI_DEV_POWER_USAGE"),
                *[
                    Query(f"{query.expr} > 0", f"{query.legend} XID")
                    for query in _gpu("DCGM_FI_DEV_XID_ERRORS", by="max by (pod, gpu)")
                ],
            ],
            unit="watt",
            width=6,
            exporter="dcgm",
        ),
    ],
)
