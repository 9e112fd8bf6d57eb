"""`gmr metrics`: the page docs/metrics.md, from the metrics that the code registers."""

from __future__ import annotations

from collections.abc import Sequence

import typer

_MAX_LISTED = 9
"""The most values of a label that are listed; error codes, for example, are more."""


def print_metrics() -> None:
    """Print every metric with its labels, as a page of Markdown."""
    from prometheus_client import REGISTRY

    from service.observability import exposition  # noqa: F401 - its import registers each metric
    from service.observability.metric_types import LABELS

    typer.echo(
        "# Metrics\n\nGateways and workers serve these metrics at `GET /metrics`, in Prometheus'"
        " text format or in OpenMetrics. `gmr metrics` prints this page.\nA worker with vLLM also"
        " exports vLLM's metrics (`vllm:*`); every process exports `process_*` and `python_*`."
        "\n\n| name | type | labels | description |\n|---|---|---|---|"
    )
    for family in sorted(REGISTRY.collect(), key=lambda family: family.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if name in LABELS:
            labels = "<br>".join(_label(label, values) for label, values in LABELS[name].items())
            typer.echo(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")


def _label(name: str, values: Sequence[str]) -> str:
    if not values or len(values) > _MAX_LISTED:
        return f"`{name}`"
    return f"`{name}`: {', '.join(values)}"
