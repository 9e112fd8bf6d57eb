"""Quality: the distribution of scores by model digest, drift, pairs without a score, and the
agreement of cascades with their last stage."""

from __future__ import annotations

from deploy.dashboards.pages import Dashboard, Panel, Query, Row
from deploy.dashboards.promql import mean, quantile, ratio, series, total
from deploy.dashboards.variables import DIGEST, MODEL, targets

_SCORE = "rerank_relevance_score"
_DIGEST = 'digest=~"$digest"'
_MODEL = 'model=~"$model"'
_RANKED = 'result=~"computed|cached"'
_PAIRS = total("rerank_pairs_total", _DIGEST, by="digest")
_ALL = total(f"{_SCORE}_count", _DIGEST, by="digest")


def _below(bound: str) -> str:
    """Pairs per second with a score up to a bucket bound."""
    return total(f"{_SCORE}_bucket", _DIGEST, f'le="{bound}"', by="digest")


SCORES = Row(
    "Scores",
    [
        Panel(
            "Distribution",
            "Scores per second by value. A good reranker mostly rejects and sometimes accepts: "
            "two bands, and little between them.",
            [Query(total(f"{_SCORE}_bucket", _DIGEST, by="le"), "{{le}}")],
            kind="heatmap",
            width=12,
            height=9,
        ),
        Panel(
            "Mean, median and p95 by digest",
            "They change with the model, the data, or the queries. If only one digest differs, "
            "the cause is the model.",
            [
                Query(mean(_SCORE, _DIGEST, by="digest"), "{{digest}} mean"),
                Query(quantile(0.5, _SCORE, _DIGEST, by="digest"), "{{digest}} p50"),
                Query(quantile(0.95, _SCORE, _DIGEST, by="digest"), "{{digest}} p95"),
            ],
            unit="none",
            width=12,
            height=9,
            maximum=1,
        ),
        Panel(
            "Relevant",
            "Share of scores above 0.5.",
            [Query(f"1 - {ratio(_below('0.5'), _ALL)}", "{{digest}}")],
            unit="percentunit",
            maximum=1,
        ),
        Panel(
            "Undecided",
            "Share of scores from 0.1 to 0.9. It rises if prompts differ from those of the "
            "training.",
            [Query(ratio(f"({_below('0.9')} - {_below('0.1')})", _ALL), "{{digest}}")],
            unit="percentunit",
            maximum=1,
        ),
        Panel(
            "Saturated",
            "Share of scores below 0.001 or above 0.999. Ranking uses logits, so their order is"
            " still meaningful.",
            [
                Query(
                    f"1 - {ratio(f'''({_below('0.999')} - {_below('0.001')})''', _ALL)}",
                    "{{digest}}",
                )
            ],
            unit="percentunit",
            maximum=1,
        ),
    ],
)


def _mean_over(window: str) -> str:
    """The mean score in a time window, by digest."""
    gained = [
        f"sum by (digest) (increase({series(f'{_SCORE}_{part}', _DIGEST)}[{window}]))"
        for part in ("sum", "count")
    ]
    return f"({ratio(*gained)})"


DRIFT = Row(
    "Drift",
    [
        Panel(
            "Mean score: last hour against last day",
            "Difference between the means. A slow change is traffic; a step is a new model, "
            "prompt or data set.",
            [Query(f"{_mean_over('1h')} - {_mean_over('1d')}", "{{digest}}")],
            unit="none",
            minimum=None,
        ),
        Panel(
            "Golden pairs: drift",
            "Largest difference from a published logit, as a share of the tolerance. At 1 a "
            "worker does not turn ready.",
            [
                Query(
                    ratio(
                        series("rerank_golden_drift_logits", _MODEL),
                        series("rerank_golden_tolerance_logits", _MODEL),
                    ),
                    "{{pod}} {{model}} {{digest}}",
                )
            ],
            unit="percentunit",
            thresholds=[(0.5, "orange"), (1, "red")],
            threshold_lines=True,
        ),
        Panel(
            "Workers by digest",
            "Ready workers, of the gateway that has the most. Two digests of a model: a roll-"
            "out is under way, or stuck.",
            [
                Query(
                    f"max by (model, digest) ({series('rerank_model_workers', _MODEL)})",
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
            "Ranked pairs per second, cached ones included.",
            [Query(total("rerank_pairs_total", _DIGEST, _RANKED, by="digest"), "{{digest}}")],
            unit="si:pairs/s",
            stacked=True,
        ),
        Panel(
            "Truncated",
            "Share of scored pairs whose text was longer than the model's limit. The rest of "
            "the text was not scored: split such documents.",
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
            "Share of pairs without a score: refused because of their content (image, length), "
            "or failed in the service.",
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
            "Cached",
            "Share of ranked pairs whose score was cached. A new digest starts at 0.",
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
            maximum=1,
        ),
        Panel(
            "Rejected values in Redis",
            "Truncated, changed or moved values, or those of another program. They are misses; "
            "more than a few mean that gateways do not share their secret.",
            [Query(total("rerank_cache_rejected_total", by="reason"), "{{reason}}")],
            unit="si:values/s",
        ),
        Panel(
            "Harmful input",
            "Images refused because they recently killed or stalled a decoder, and pairs that "
            "made the network fail.",
            [
                Query(total("rerank_quarantined_images_total"), "images"),
                Query(total("rerank_isolated_pairs_total"), "pairs"),
            ],
            unit="cps",
        ),
    ],
)
CASCADES = Row(
    "Cascades",
    [
        Panel(
            "Overlap of the best ten",
            "Share of the last stage's best ten documents that the cascade has there, too, of the "
            "requests that were compared in the background. Below 0.9 for hours is an alert.",
            [Query(mean("rerank_cascade_top10_overlap", by="cascade"), "{{cascade}}")],
            unit="percentunit",
            maximum=1,
        ),
        Panel(
            "Kendall's tau",
            "Agreement of the whole order with that of the last stage alone: 1 is the same order, "
            "0 as good as chance.",
            [
                Query(
                    f"1 - 2 * ({mean('rerank_cascade_discordance', by='cascade')})",
                    "{{cascade}}",
                )
            ],
            unit="none",
            minimum=None,
            maximum=1,
        ),
        Panel(
            "Compared requests",
            "Sampled requests per second by outcome; busy and too_large were left out, so that no "
            "other request waits.",
            [
                Query(
                    total("rerank_cascade_comparisons_total", by="cascade, outcome"),
                    "{{cascade}} {{outcome}}",
                )
            ],
            unit="reqps",
        ),
        Panel(
            "Documents by stage",
            "Ranked documents per second by the stage that scored them last: the later the stage, "
            "the more work.",
            [
                Query(
                    total("rerank_cascade_documents_total", by="cascade, stage"),
                    "{{cascade}} {{stage}}",
                )
            ],
            unit="cps",
            stacked=True,
        ),
        Panel(
            "Tokens by stage",
            "Prompt tokens per second of the pairs that each stage scored, cached ones included.",
            [
                Query(
                    total("rerank_cascade_prompt_tokens_total", by="cascade, stage"),
                    "{{cascade}} {{stage}}",
                )
            ],
            unit="cps",
            stacked=True,
        ),
        Panel(
            "Served",
            "1 while every stage is served in the version that the cascade was measured with, of "
            "the gateway that has it worst.",
            [Query(f"min by (cascade) ({series('rerank_cascade_ready')})", "{{cascade}}")],
            unit="none",
            maximum=1,
        ),
    ],
)

DASHBOARD = Dashboard(
    "quality",
    "gmr-rerank / Quality",
    __doc__,
    [*targets("gateway|worker"), MODEL, DIGEST],
    [SCORES, DRIFT, PAIRS, CASCADES],
)
