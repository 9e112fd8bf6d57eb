"""Choice of an engine by the settings: the only module that names the engines."""

from __future__ import annotations

from service.worker.engines.base import Engine
from service.worker.settings import WorkerSettings


def create_engine(settings: WorkerSettings) -> Engine:
    """The engine that the settings name, not started yet."""
    match settings.engine:
        case "torch":
            from service.worker.engines.torch.engine import TorchEngine

            return TorchEngine(
                device=settings.device,
                threads=settings.threads,
                batch_tokens=settings.batch_tokens,
                stall_seconds=settings.stall_seconds,
                max_completion_tokens=settings.max_completion_tokens,
            )
        case "vllm":
            from service.worker.engines.vllm.engine import VllmEngine

            return VllmEngine(
                settings.engine_arguments,
                stall_seconds=settings.stall_seconds,
                max_completion_tokens=settings.max_completion_tokens,
            )
