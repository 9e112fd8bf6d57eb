"""The metrics of cascades: whether they are served, what each stage scores, and how far they agree
with their last stage alone.

Depends on no cascade. Invariant: a label has the name of a cascade of the settings, or the number
of a stage, never what a client sent.
"""

from __future__ import annotations

from service.observability.metric_types import OPEN, counter, gauge, histogram

STAGES = ("1", "2", "3", "4")
OUTCOMES = ("compared", "busy", "too_large", "failed")
_SHARES = (0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1)
_TENTHS = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)

CASCADE_READY = gauge(
    "rerank_cascade_ready",
    "1 if a cascade is served; 0 if a stage is not, or in another version than it was measured "
    "with.",
    cascade=OPEN,
)
CASCADE_DOCUMENTS = counter(
    "rerank_cascade_documents_total",
    "Ranked documents of cascades, by the stage that scored them last.",
    cascade=OPEN,
    stage=STAGES,
)
CASCADE_TOKENS = counter(
    "rerank_cascade_prompt_tokens_total",
    "Prompt tokens of the pairs that each stage of a cascade scored, cached ones included.",
    cascade=OPEN,
    stage=STAGES,
)
CASCADE_COMPARISONS = counter(
    "rerank_cascade_comparisons_total",
    "Sampled requests of cascades that were to be scored fully by the last stage, by outcome: busy "
    "and too_large were left out.",
    cascade=OPEN,
    outcome=OUTCOMES,
)
CASCADE_DISCORDANCE = histogram(
    "rerank_cascade_discordance",
    "Share of pairs of documents that a cascade orders otherwise than its last stage alone, of "
    "compared requests; Kendall's tau is 1 - 2 times it.",
    _SHARES,
    cascade=OPEN,
)
CASCADE_OVERLAP = histogram(
    "rerank_cascade_top10_overlap",
    "Share of the best ten documents of the last stage alone that are among the cascade's, of "
    "compared requests.",
    _TENTHS,
    cascade=OPEN,
)


def begin_series(cascade: str, stages: int) -> None:
    """Begin the series of a cascade at 0, so that the first increase of each is visible."""
    for stage in STAGES[:stages]:
        CASCADE_DOCUMENTS.labels(cascade, stage)
        CASCADE_TOKENS.labels(cascade, stage)
    for outcome in OUTCOMES:
        CASCADE_COMPARISONS.labels(cascade, outcome)
    CASCADE_DISCORDANCE.labels(cascade)
    CASCADE_OVERLAP.labels(cascade)
