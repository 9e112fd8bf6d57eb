"""What vLLM says of each of its steps, as our own metrics of an engine.

Knows vLLM's statistics, which are no stable interface, nothing of calls or prompts. Invariant: what
is read of a step later was read once before the engine starts, so that a version that says it
differently does not load, rather than fail while it serves.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import IterationStats

from service.worker.engines.base import CannotLoad
from service.worker.engines.progress import count_step


class StepStats(StatLoggerBase):  # type: ignore[misc]
    """Counts steps for one engine. vLLM makes it and tells it everything; raises `CannotLoad`."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self._budget = int(vllm_config.scheduler_config.max_num_batched_tokens)
        try:
            _scored(IterationStats())
        except (AttributeError, TypeError):
            raise CannotLoad(
                "This vLLM tells of its steps in another way: set"
                " RERANK_ENGINE_DISABLE_LOG_STATS=true to do without."
            ) from None

    def record(
        self,
        scheduler_stats: object,
        iteration_stats: Any,
        mm_cache_stats: object = None,
        engine_idx: int = 0,
        **_: object,
    ) -> None:
        """Count a step, if it scored pairs."""
        if iteration_stats is None:
            return
        pairs, tokens = _scored(iteration_stats)
        if pairs:
            count_step(pairs, tokens, tokens / self._budget)

    def log_engine_initialized(self) -> None:
        """Nothing to say."""


def _scored(stats: Any) -> tuple[int, int]:
    """Pairs that a step finished, and the prompt tokens that were computed for them."""
    return len(stats.finished_requests), int(stats.prompt_token_stats.computed)
