"""The metrics of a worker and of its engine, each by its name, with its labels.

Does not depend on any engine: each reports through these. Invariant: as in
`service.observability.metrics`, nothing that a caller sent becomes a label.
"""

from __future__ import annotations

from service.observability.metric_types import COUNTS, OPEN, counter, gauge, histogram

_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 12288, 16384, 32768)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)

ENGINE_CALLS = gauge(
    "rerank_engine_calls_in_flight", "Calls that the worker has accepted and not answered yet."
)
ENGINE_CALL_LIMIT = gauge(
    "rerank_engine_calls_limit", "Maximum number of calls that the worker accepts at once."
)
ENGINE_PAIRS = gauge(
    "rerank_engine_pairs_in_flight", "Pairs of accepted calls that are not scored or refused yet."
)
ENGINE_TOKENS = counter(
    "rerank_engine_prompt_tokens_total",
    "Prompt tokens of pairs that the engine scored: computed, or reused from its prefix cache.",
    source=("computed", "prefix"),
)
ENGINE_COMPLETION_TOKENS = counter(
    "rerank_engine_completion_tokens_total",
    "Tokens that the engine wrote for pairs whose score is written as text, whether or not they "
    "came to a score.",
)
ENGINE_STEPS = counter("rerank_engine_steps_total", "Forward passes over pairs.")
BATCH_PAIRS = histogram("rerank_batch_pairs", "Pairs scored by one forward pass.", COUNTS)
BATCH_TOKENS = histogram("rerank_batch_tokens", "Tokens computed by one forward pass.", _TOKENS)
BATCH_FILL = histogram(
    "rerank_batch_fill_ratio", "Share of a forward pass's token budget that was used.", _SHARES
)
STALLED_SECONDS = gauge(
    "rerank_engine_stalled_seconds",
    "Seconds since the engine last made progress while it had work; 0 when it is idle.",
)
ISOLATED_PAIRS = counter(
    "rerank_isolated_pairs_total",
    "Pairs that the engine could not score, refused without failing the rest of their batch.",
)
IMAGE_CACHE_LOOKUPS = counter(
    "rerank_image_cache_lookups_total",
    "Image embeddings looked up in the engine's image cache, by result.",
    result=("hit", "miss"),
)
CALL_PICTURES = counter(
    "rerank_call_pictures_total",
    "Pictures of calls, by source of their pixels: sent with the call, kept from an earlier one, "
    "or missing, so that the gateway sends them.",
    source=("sent", "kept", "missing"),
)
LOAD_SECONDS = gauge(
    "rerank_model_load_seconds",
    "Seconds from the start of the worker until its model was ready, golden pairs included.",
)
GOLDEN_DRIFT = gauge(
    "rerank_golden_drift_logits",
    "Largest difference between a golden pair's logit and its published logit, at the last check.",
    model=OPEN,
    digest=OPEN,
)
GOLDEN_PAIRS = gauge(
    "rerank_golden_pairs",
    "Golden pairs of a served model; 0: it has none, so the check at start was skipped "
    "and drift is not measured.",
    model=OPEN,
    digest=OPEN,
)
GOLDEN_TOLERANCE = gauge(
    "rerank_golden_tolerance_logits",
    "Largest difference of a golden pair's logit at which the worker turns ready.",
    model=OPEN,
    digest=OPEN,
)
MODEL_INFO = gauge(
    "rerank_model_info",
    "1 for each model that the worker serves; version is the model's version in the registry.",
    model=OPEN,
    digest=OPEN,
    version=OPEN,
    engine=OPEN,
    dtype=OPEN,
    device=OPEN,
)
