"""What a run of `gmr bench` compares, and on what: read from the command line once, checked, and
passed down.

Knows names and bounds, starts nothing. Invariant: a plan that exists can be carried out, as far as
names and paths can tell.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_store.checkpoint import expect_named
from service.bench.traffic import DESCRIPTIONS

CONTENDERS = ("ours", "vllm", "vllm-tuned", "torch", "naive", "naive-last")
DTYPES = ("float32", "bfloat16")
DEVICES = ("cpu", "cuda")
ENGINES = ("vllm", "torch")
MAX_CALLERS = 256
ENGINE_PREFIX = "RERANK_ENGINE_"
_BESIDE_THE_PROJECT = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"


class BenchRefused(Exception):
    """A run that cannot be made as asked; its text is one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. `model` is a name as typed; `dtype` is that of all engines that have a choice."""

    model: str
    contenders: tuple[str, ...]
    workloads: tuple[str, ...]
    callers: tuple[int, ...]
    samples: int
    documents: int
    dtype: str
    device: str
    engine: str
    quantization: str | None
    python_vllm: str
    output: Path | None

    @property
    def cores(self) -> list[int]:
        """The processor's cores that this process, and so all that it starts, may use."""
        return sorted(os.sched_getaffinity(0))

    def engine_settings(self) -> dict[str, str]:
        """vLLM's engine arguments of our worker and of the tuned server alike: our defaults, and
        what the environment sets."""
        chosen = {
            name.removeprefix(ENGINE_PREFIX).lower(): value
            for name, value in os.environ.items()
            if name.startswith(ENGINE_PREFIX)
        }
        return _ENGINE[self.device] | chosen | self.common_settings()

    def common_settings(self) -> dict[str, str]:
        """vLLM's engine arguments of every contender that runs on vLLM, tuned or not: what decides
        scores, and room for all."""
        settings = {"dtype": self.dtype}
        if self.quantization:
            settings["quantization"] = self.quantization
        if self.random_weights:
            settings["load_format"] = "dummy"
        if self.device == "cuda":
            engines = sum(name in ("ours", "vllm", "vllm-tuned") for name in self.contenders) or 1
            settings["gpu_memory_utilization"] = f"{0.9 / engines:.2f}"
        return settings

    @property
    def random_weights(self) -> bool:
        """Whether the checkpoint is a size without weights: then nothing is compared but time."""
        return self.model in SIZES


GENERATED = "generated"
SIZES = ("3b", "7b")
"""Checkpoints that have Qwen2.5-VL's layer shapes and no weights."""

# The defaults of our worker, written out so that the tuned server gets the very same.
_ENGINE = {
    "cpu": {"block_size": "32", "max_num_batched_tokens": "2048"},
    "cuda": {"max_num_batched_tokens": "16384", "max_num_seqs": "1024"},
}


def make_plan(  # each option by its name
    *,
    model: str,
    contenders: str,
    workloads: str,
    callers: str,
    samples: int,
    documents: int,
    dtype: str | None,
    device: str,
    engine: str,
    quantization: str | None,
    python_vllm: Path | None,
    output: Path | None,
) -> Plan:
    """A plan from options as they were typed; raises `BenchRefused`, or `CheckpointUnusable` where
    there is no such model."""
    plan = Plan(
        model=model,
        contenders=_names("contender", contenders, CONTENDERS),
        workloads=_names("workload", workloads, tuple(DESCRIPTIONS)),
        callers=_numbers(callers),
        samples=samples,
        documents=documents,
        dtype=_names("dtype", dtype or ("float32" if model == "gmr-tiny" else "bfloat16"), DTYPES)[
            0
        ],
        device=_names("device", device, DEVICES)[0],
        engine=_names("engine", engine, ENGINES)[0],
        quantization=quantization,
        python_vllm=_python(python_vllm),
        output=output,
    )
    if model not in (GENERATED, *SIZES):
        expect_named(model)
    weighty = [name for name in plan.contenders if name in ("torch", "naive", "naive-last")]
    if plan.random_weights and weighty:
        raise BenchRefused(f"{model} has no weights: leave out {', '.join(weighty)}.")
    if quantization and weighty:
        raise BenchRefused(f"Only vLLM quantises: leave out {', '.join(weighty)}.")
    return plan


def _names(kind: str, typed: str, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in typed.split(",")))
    for name in names:
        if name not in known:
            raise BenchRefused(f"There is no {kind} {name!r}: choose from {', '.join(known)}.")
    return names


def _numbers(typed: str) -> tuple[int, ...]:
    numbers = [part.strip() for part in typed.split(",")]
    if not all(
        number.isascii() and number.isdecimal() and 1 <= int(number) <= MAX_CALLERS
        for number in numbers
    ):
        raise BenchRefused(f"Callers are whole numbers from 1 to {MAX_CALLERS}, comma-separated.")
    return tuple(dict.fromkeys(int(number) for number in numbers))


def _python(given: Path | None) -> str:
    """The interpreter that has vLLM. Its path is kept as given: an environment's link must not be
    followed."""
    if given is not None:
        if not os.access(given, os.X_OK) or given.is_dir():
            raise BenchRefused(f"There is no interpreter {given}.")
        return str(given)
    return str(_BESIDE_THE_PROJECT) if _BESIDE_THE_PROJECT.exists() else sys.executable
