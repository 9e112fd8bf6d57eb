"""The only place that names the engines."""

from __future__ import annotations

from service.worker.engines.base import Engine
from service.worker.settings import WorkerSettings


def create_engine(settings: WorkerSettings) -> Engine:
    """The engine that the settings ask for, not started yet."""
    match settings.engine:
        case "torch":
            from service.worker.engines.torch.engine import TorchEngine

            return TorchEngine(settings)
        case "vllm":
            from service.worker.engines.vllm.engine import VllmEngine

            return VllmEngine(settings)
