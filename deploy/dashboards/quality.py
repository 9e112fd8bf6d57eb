"""Quality: what scores look like, by the digest of the model that gave them, and what gets none."""

from __future__ import annotations

from deploy.dashboards.pages import Dashboard, Panel, Query, Row
from deploy.dashboards.promql import mean, of, quantile, ratio, total
from deploy.dashboards.variables import DIGEST, MODEL, places

_SCORE = "rerank_relevance_score"
_DIGEST = 'digest=~"$digest"'
_MODEL = 'model=~"$model"'
_RANKED = 'result=~"computed|cached"'
_PAIRS = total("rerank_pairs_total", _DIGEST, by="digest")
_ALL = total(f"{_SCORE}_count", _DIGEST, by="digest")


def _below(edge: str) -> str:
    """Pairs a second whose score is at most an edge of the histogram."""
    return total(f"{_SCORE}_bucket", _DIGEST, f'le="{edge}"', by="digest")


SCORES = Row(
    "Scores",
    [
        Panel(
            "Distribution",
            "How many scores a second lie where. A good reranker says mostly no, and sometimes yes:"
            " two bands, little between.",
            [Query(total(f"{_SCORE}_bucket", _DIGEST, by="le"), "{{le}}")],
            kind="heatmap",
            width=12,
            height=9,
        ),
        Panel(
            "Mean, median and p95 by digest",
            "They move when the model, the data, or the questions do. A digest that differs from"
            " the one before it is the model.",
            [
                Query(mean(_SCORE, _DIGEST, by="digest"), "{{digest}} mean"),
                Query(quantile(0.5, _SCORE, _DIGEST, by="digest"), "{{digest}} p50"),
                Query(quantile(0.95, _SCORE, _DIGEST, by="digest"), "{{digest}} p95"),
            ],
            unit="none",
            width=12,
            height=9,
            high=1,
        ),
        Panel(
            "Relevant",
            "Share of pairs with a score above 0.5.",
            [Query(f"1 - {ratio(_below('0.5'), _ALL)}", "{{digest}}")],
            unit="percentunit",
            high=1,
        ),
        Panel(
            "Undecided",
            "Share of scores from 0.1 to 0.9. It rises when prompts are not what the model was"
            " trained on.",
            [Query(ratio(f"({_below('0.9')} - {_below('0.1')})", _ALL), "{{digest}}")],
            unit="percentunit",
            high=1,
        ),
        Panel(
            "Saturated",
            "Share of scores below 0.001 or above 0.999: their order still counts (by logit), but"
            " the score says nothing more.",
            [
                Query(
                    f"1 - {ratio(f'''({_below('0.999')} - {_below('0.001')})''', _ALL)}",
                    "{{digest}}",
                )
            ],
            unit="percentunit",
            high=1,
        ),
    ],
)


def _mean_over(window: str) -> str:
    """The mean score of a window, by digest."""
    gained = [
        f"sum by (digest) (increase({of(f'{_SCORE}_{part}', _DIGEST)}[{window}]))"
        for part in ("sum", "count")
    ]
    return f"({ratio(*gained)})"


DRIFT = Row(
    "Drift",
    [
        Panel(
            "Mean score: last hour against last day",
            "How much higher the mean of the last hour is. A slow swing is traffic; a step is a"
            " change of model, prompt or data.",
            [Query(f"{_mean_over('1h')} - {_mean_over('1d')}", "{{digest}}")],
            unit="none",
            low=None,
        ),
        Panel(
            "Golden pairs: how far off",
            "The largest difference from a published logit, of what is tolerated. At 1 a worker"
            " does not turn ready.",
            [
                Query(
                    ratio(
                        of("rerank_golden_drift_logits", _MODEL),
                        of("rerank_golden_tolerance_logits", _MODEL),
                    ),
                    "{{pod}} {{model}} {{digest}}",
                )
            ],
            unit="percentunit",
            steps=[(0.5, "orange"), (1, "red")],
            limit=True,
        ),
        Panel(
            "Workers by digest",
            "Ready ones, as the gateway with most sees them. Two digests of one model: a roll-out"
            " is under way, or stuck.",
            [
                Query(
                    f"max by (model, digest) ({of('rerank_model_workers', _MODEL)})",
                    "{{model}} {{digest}}",
                )
            ],
            stacked=True,
        ),
    ],
)
PAIRS = Row(
    "Pairs",
    [
        Panel(
            "Pairs by digest",
            "Ranked a second, cached ones included.",
            [Query(total("rerank_pairs_total", _DIGEST, _RANKED, by="digest"), "{{digest}}")],
            unit="si:pairs/s",
            stacked=True,
        ),
        Panel(
            "Truncated",
            "Share of scored pairs whose text was longer than the model reads; what was cut was not"
            " judged. Chunk documents.",
            [
                Query(
                    ratio(total("rerank_truncated_pairs_total", _DIGEST, by="digest"), _ALL),
                    "{{digest}}",
                )
            ],
            unit="percentunit",
        ),
        Panel(
            "Refused and failed",
            "Share of pairs without a score: refused for what they are (image, length), or failed"
            " in the service.",
            [
                Query(
                    ratio(
                        total("rerank_pairs_total", _DIGEST, f'result="{result}"', by="digest"),
                        _PAIRS,
                    ),
                    f"{{{{digest}}}} {result}",
                )
                for result in ("refused", "failed")
            ],
            unit="percentunit",
        ),
        Panel(
            "Known",
            "Share of ranked pairs whose score was known. A new digest begins at nothing.",
            [
                Query(
                    ratio(
                        total("rerank_pairs_total", _DIGEST, 'result="cached"', by="digest"),
                        total("rerank_pairs_total", _DIGEST, _RANKED, by="digest"),
                    ),
                    "{{digest}}",
                )
            ],
            unit="percentunit",
            high=1,
        ),
        Panel(
            "Values in Redis that were not believed",
            "Cut, changed, moved, or not ours. They are misses; more than a few mean that gateways"
            " do not share their secret.",
            [Query(total("rerank_cache_rejected_total", by="reason"), "{{reason}}")],
            unit="si:values/s",
        ),
        Panel(
            "Harmful input",
            "Images refused because they harmed a decoder a moment ago, and pairs that made the"
            " network fail.",
            [
                Query(total("rerank_quarantined_images_total"), "images"),
                Query(total("rerank_isolated_pairs_total"), "pairs"),
            ],
            unit="cps",
        ),
    ],
)

DASHBOARD = Dashboard(
    "quality",
    "gmr-rerank / Quality",
    __doc__,
    [*places("gateway|worker"), MODEL, DIGEST],
    [SCORES, DRIFT, PAIRS],
)
