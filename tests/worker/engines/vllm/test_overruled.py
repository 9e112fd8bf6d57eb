"""A chosen engine argument that vLLM changes is reported, with both values."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field

import pytest

from service.worker.engines.vllm.overruled import overruled
from tests.worker.engines.vllm.engine_worker import EngineWorker


class Policy(enum.Enum):
    FCFS = "fcfs"


class Dtype:
    """`torch.float16`, as it prints itself."""

    def __str__(self) -> str:
        return "torch.float16"


@dataclass
class SchedulerConfig:
    async_scheduling: bool = False
    max_num_seqs: int = 8
    policy: Policy = Policy.FCFS


@dataclass
class MultiModalConfig:
    mm_processor_cache_gb: float = 0.5
    dtype: str = "bfloat16"


@dataclass
class ModelConfig:
    dtype: Dtype = field(default_factory=Dtype)
    quantization: str | None = None
    multimodal_config: MultiModalConfig = field(default_factory=MultiModalConfig)


@dataclass
class VllmConfig:
    """Laid out as vLLM's is."""

    model_config: ModelConfig = field(default_factory=ModelConfig)
    scheduler_config: SchedulerConfig = field(default_factory=SchedulerConfig)


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"async_scheduling": False, "max_num_seqs": 8, "mm_processor_cache_gb": 0.5},
        {"dtype": "float16"},
        {"dtype": "half"},
        {"dtype": "auto"},
        {"scheduling_policy": "fcfs"},
        {"disable_log_stats": True},  # has no field
        {"scheduler_config": {"async_scheduling": True}},  # no plain value
    ],
)
def test_an_argument_in_effect_is_not_reported(chosen: dict[str, object]) -> None:
    assert overruled(chosen, VllmConfig()) == []


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "async_scheduling",
            True,
            "RERANK_ENGINE_ASYNC_SCHEDULING=true is overruled by vLLM, which uses false.",
        ),
        (
            "max_num_seqs",
            16,
            "RERANK_ENGINE_MAX_NUM_SEQS=16 is overruled by vLLM, which uses 8.",
        ),
        (
            "mm_processor_cache_gb",
            4.0,
            "RERANK_ENGINE_MM_PROCESSOR_CACHE_GB=4.0 is overruled by vLLM, which uses 0.5.",
        ),
        (
            "dtype",
            "bfloat16",
            "RERANK_ENGINE_DTYPE=bfloat16 is overruled by vLLM, which uses float16.",
        ),
        (
            "quantization",
            "fp8",
            "RERANK_ENGINE_QUANTIZATION=fp8 is overruled by vLLM, which uses None.",
        ),
        (
            "scheduling_policy",
            "priority",
            "RERANK_ENGINE_SCHEDULING_POLICY=priority is overruled by vLLM, which uses fcfs.",
        ),
    ],
)
def test_an_argument_that_was_changed_is_reported(name: str, value: object, sentence: str) -> None:
    (difference,) = overruled({name: value}, VllmConfig())
    assert difference.sentence() == sentence


def test_a_worker_warns_about_what_vllm_overrules(plain: EngineWorker) -> None:
    """Its four other arguments are in effect; asynchronous scheduling is off on vLLM's CPU
    platform."""
    lines = plain.log.read_text(encoding="utf-8").splitlines()
    warnings = [line for line in lines if "is overruled by vLLM" in line]
    assert [json.loads(line)["message"] for line in warnings] == [
        "RERANK_ENGINE_ASYNC_SCHEDULING=true is overruled by vLLM, which uses false."
    ]
    assert [json.loads(line)["level"] for line in warnings] == ["warning"]
