"""`gmr metrics`: every metric's name, type, labels and meaning, from the code, as a page of
Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import typer

_SHORTEST_LIST = 9
"""Values of a label that are listed; of more, as of the error codes, their number."""


def print_metrics() -> None:
    """List every metric with its labels, as a page of Markdown."""
    from prometheus_client import REGISTRY

    from service.observability import exposition  # noqa: F401 - its import registers each metric
    from service.observability.metric_types import LABELS

    typer.echo(
        "# Metrics\n\n`GET /metrics` of a gateway and of a worker, in Prometheus' text format or in"
        " OpenMetrics. `gmr metrics` prints this page.\nA worker with vLLM adds vLLM's own"
        " (`vllm:*`); every process adds `process_*` and `python_*`.\n\n| name | type | labels |"
        " what it is |\n|---|---|---|---|"
    )
    for family in sorted(REGISTRY.collect(), key=lambda each: each.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if name in LABELS:
            labels = "<br>".join(_label(label, values) for label, values in LABELS[name].items())
            typer.echo(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")


def _label(name: str, values: Sequence[str]) -> str:
    if not values or len(values) > _SHORTEST_LIST:
        return f"`{name}`"
    return f"`{name}`: {', '.join(values)}"
