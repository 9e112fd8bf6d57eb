"""The only place that names the scorers."""

from __future__ import annotations

from service.worker.engines.base import Scorer
from service.worker.settings import WorkerSettings


def create_scorer(settings: WorkerSettings) -> Scorer:
    """The scorer that the settings ask for, not started yet."""
    match settings.engine:
        case "torch":
            from service.worker.engines.torch.scorer import TorchScorer

            return TorchScorer(settings)
        case "vllm":
            from service.worker.engines.vllm.scorer import VllmScorer

            return VllmScorer(settings)
