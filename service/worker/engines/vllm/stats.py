"""vLLM's statistics of its steps, as this project's metrics of an engine.

Depends on vLLM's statistics, which are no stable interface, not on calls or prompts. Invariant:
every field that is read of a step was read once before the engine starts, so that a version of vLLM
without it does not load, rather than fail while it serves.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import IterationStats

from service.observability.engine_metrics import ENGINE_STEPS
from service.worker.engines.base import CannotLoad
from service.worker.engines.progress import count_step


class StepStats(StatLoggerBase):  # type: ignore[misc]
    """Counts the steps of one engine. vLLM constructs it and calls `record`.

    Raises `CannotLoad` at construction where the statistics lack a field.
    """

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self._budget = int(vllm_config.scheduler_config.max_num_batched_tokens)
        try:
            _scored(IterationStats())
        except (AttributeError, TypeError):
            raise CannotLoad(
                "This version of vLLM has other statistics: set"
                " RERANK_ENGINE_DISABLE_LOG_STATS=true to serve without metrics of steps."
            ) from None

    def record(
        self,
        scheduler_stats: object,
        iteration_stats: Any,
        mm_cache_stats: object = None,
        engine_idx: int = 0,
        **_: object,
    ) -> None:
        """Count a step, if it scored pairs or wrote tokens."""
        if iteration_stats is None:
            return

        pairs, tokens, written = _scored(iteration_stats)
        if pairs:
            count_step(pairs, tokens, tokens / self._budget)
        elif written:
            ENGINE_STEPS.inc()

    def log_engine_initialized(self) -> None:
        """Log nothing."""


def _scored(stats: Any) -> tuple[int, int, int]:
    """The pairs that a step finished, the prompt tokens that it computed, and those it wrote."""
    computed, written = stats.prompt_token_stats.computed, stats.num_generation_tokens
    return len(stats.finished_requests), int(computed), int(written)
