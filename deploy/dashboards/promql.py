"""The turns of PromQL that every panel uses, restricted to what the viewer has chosen at the top of
the dashboard.

Knows that our series carry `namespace`, `job` and `pod` where Prometheus found them by Kubernetes,
and no metric's name.
"""

from __future__ import annotations

CHOSEN = 'namespace=~"$namespace", job=~"$job", pod=~"$pod"'
WINDOW = "$__rate_interval"


def of(metric: str, *matchers: str) -> str:
    """The chosen series of a metric."""
    return f"{metric}{{{', '.join((CHOSEN, *matchers))}}}"


def rate(metric: str, *matchers: str) -> str:
    """What each chosen series gains a second."""
    return f"rate({of(metric, *matchers)}[{WINDOW}])"


def seen(metric: str, by: str) -> str:
    """Like `total`, of those values alone that came up in the time that is looked at: not every
    code there is."""
    return f"{total(metric, by=by)} and sum by ({by}) (increase({of(metric)}[$__range])) > 0"


def total(metric: str, *matchers: str, by: str = "") -> str:
    """What all chosen series gain a second, one for each value of the labels `by`."""
    return f"sum{_by(by)} ({rate(metric, *matchers)})"


def ratio(part: str, whole: str) -> str:
    """A part of a whole; no value, rather than NaN, where the whole is zero. Both sides have the
    same labels."""
    return f"{part} / ({whole} > 0)"


def quantile(share: float, histogram: str, *matchers: str, by: str = "") -> str:
    """Below what this share of a histogram's observations lies."""
    buckets = total(f"{histogram}_bucket", *matchers, by=f"{by}, le" if by else "le")
    return f"histogram_quantile({share}, {buckets})"


def mean(histogram: str, *matchers: str, by: str = "") -> str:
    """The mean of a histogram's observations."""
    return ratio(
        total(f"{histogram}_sum", *matchers, by=by), total(f"{histogram}_count", *matchers, by=by)
    )


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
