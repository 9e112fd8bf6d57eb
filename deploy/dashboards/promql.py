"""PromQL expressions over the series that the viewer selected at the top of a dashboard.

Depends on the labels `namespace`, `job` and `pod`, which Prometheus adds to series of targets in
Kubernetes, not on any metric. Invariant: every expression is restricted to the selection.
"""

from __future__ import annotations

SELECTION = 'namespace=~"$namespace", job=~"$job", pod=~"$pod"'
WINDOW = "$__rate_interval"


def series(metric: str, *matchers: str) -> str:
    """A selector of the selected series of a metric."""
    return f"{metric}{{{', '.join((SELECTION, *matchers))}}}"


def rate(metric: str, *matchers: str) -> str:
    """The increase per second of each selected series."""
    return f"rate({series(metric, *matchers)}[{WINDOW}])"


def occurring(metric: str, by: str) -> str:
    """As `total`, without the label values that did not occur in the displayed time range."""
    return f"{total(metric, by=by)} and sum by ({by}) (increase({series(metric)}[$__range])) > 0"


def total(metric: str, *matchers: str, by: str = "") -> str:
    """The increase per second of the selected series together, by the labels `by`."""
    return f"sum{_by(by)} ({rate(metric, *matchers)})"


def ratio(part: str, whole: str) -> str:
    """A ratio of two expressions with the same labels; without a value where `whole` is zero."""
    return f"{part} / ({whole} > 0)"


def quantile(share: float, histogram: str, *matchers: str, by: str = "") -> str:
    """A quantile of a histogram's observations."""
    buckets = total(f"{histogram}_bucket", *matchers, by=f"{by}, le" if by else "le")
    return f"histogram_quantile({share}, {buckets})"


def mean(histogram: str, *matchers: str, by: str = "") -> str:
    """The mean of a histogram's observations."""
    return ratio(
        total(f"{histogram}_sum", *matchers, by=by), total(f"{histogram}_count", *matchers, by=by)
    )


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
