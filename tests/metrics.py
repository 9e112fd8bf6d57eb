"""The values of the service's metrics, as a scrape of this process would show them."""

from __future__ import annotations

from prometheus_client import REGISTRY


def metric_value(name: str, **labels: str) -> float:
    """The value of one sample, such as `rerank_errors_total`, with exactly these labels; 0.0 for a
    series that does not exist yet.

    Raises `LookupError` where no metric of the registry has samples of that name.
    """
    value = REGISTRY.get_sample_value(name, labels)
    if value is not None:
        return value

    if not any(name.startswith(family.name) for family in REGISTRY.collect()):
        raise LookupError(f"There is no metric {name}.")
    return 0.0
