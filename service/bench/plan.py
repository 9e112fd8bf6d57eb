"""The plan of a run of `gmr bench`: its options, read from the command line once, checked, and
passed down.

Depends on names and bounds; starts no program. Invariant: the names and paths of a plan that exists
are valid.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_store.checkpoint import expect_named
from service.bench.reuse.pool import DESCRIPTIONS as RETURNING
from service.bench.traffic import DESCRIPTIONS

CONTENDERS = ("ours", "vllm", "vllm-tuned", "torch", "naive", "naive-last")
ON_VLLM = ("ours", "vllm", "vllm-tuned")
"""Contenders whose engine is vLLM."""
PROMPTS = ("document", "query")
"""The side that a prompt begins with, in the workloads of documents that come back."""
MAX_POOL = 100_000
DTYPES = ("float32", "bfloat16")
_DEFAULT_CONTENDERS = ("ours", "vllm", "vllm-tuned", "torch", "naive")
RETURNING_CONTENDERS = ("ours", "vllm-tuned")
"""Contenders of the workloads whose documents come back."""
DEVICES = ("cpu", "cuda")
ENGINES = ("vllm", "torch")
MAX_CALLERS = 256
ENGINE_PREFIX = "RERANK_ENGINE_"
_PROJECT_PYTHON_VLLM = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"


class BenchRefused(Exception):
    """A run that cannot be made with these options; the text is one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. `model` is the name as typed; `dtype` is that of all engines that have a choice."""

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
    prompts: tuple[str, ...] = ()
    """The sides that prompts begin with, for documents that come back; each is a checkpoint."""
    pool: int = 0
    """The number of documents that come back."""
    kv_gib: int = 1
    """Memory of an engine's KV cache on a CPU."""
    workers: int = 1
    """Workers of our service."""

    @property
    def cores(self) -> list[int]:
        """The processor's cores that this process, and so every program that it starts, may use."""
        return sorted(os.sched_getaffinity(0))

    def engine_settings(self) -> dict[str, str]:
        """vLLM's engine arguments of our worker and of the tuned server alike: our defaults, and
        those that the environment sets."""
        chosen = {}
        for name, value in os.environ.items():
            if name.startswith(ENGINE_PREFIX):
                chosen[name.removeprefix(ENGINE_PREFIX).lower()] = value
        return _ENGINE[self.device] | chosen | self.common_settings()

    def common_settings(self) -> dict[str, str]:
        """vLLM's engine arguments of every contender that runs on vLLM, tuned or not: those that
        decide scores, and a share of the GPU's memory for each."""
        settings = {"dtype": self.dtype}
        if self.quantization:
            settings["quantization"] = self.quantization
        if self.random_weights:
            settings["load_format"] = "dummy"
        if self.device == "cuda":
            settings["gpu_memory_utilization"] = f"{0.9 / self._engines:.2f}"
        return settings

    def vllm_environment(self, *, bind_cores: bool) -> dict[str, str]:
        """Settings that vLLM reads from the environment alone. On a CPU it leaves one core free
        unless it is bound to all of them."""
        settings = {"HF_HUB_OFFLINE": "1"}
        if self.device == "cpu":
            settings["VLLM_CPU_KVCACHE_SPACE"] = str(self.kv_gib)
            if bind_cores:
                settings["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, self.cores))
        return settings

    @property
    def on_vllm(self) -> bool:
        """True if a contender runs on vLLM."""
        return any(name in ON_VLLM for name in self.contenders)

    @property
    def _engines(self) -> int:
        """The number of engines that share a GPU."""
        servers = [name for name in self.contenders if name in ON_VLLM]
        ours = self.workers - 1 if "ours" in servers else 0
        return max(1, len(servers) + ours) * max(1, len(self.prompts))

    @property
    def random_weights(self) -> bool:
        """True if the checkpoint is a size without weights: then only times are compared."""
        return self.model in SIZES


GENERATED = "generated"
SIZES = ("3b", "7b")
"""Checkpoints that have Qwen2.5-VL's layer shapes and no weights."""

# The defaults of our worker, written out so that the tuned server gets the same ones.
_ENGINE = {
    "cpu": {"block_size": "32", "max_num_batched_tokens": "2048"},
    "cuda": {"max_num_batched_tokens": "16384", "max_num_seqs": "1024"},
}


def make_plan(
    *,
    model: str,
    contenders: str | None,
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
    prompts: str = ",".join(PROMPTS),
    pool: int = 1000,
    workers: int = 1,
) -> Plan:
    """A plan from options as they were typed; raises `BenchRefused`, or `CheckpointUnusable` where
    there is no such model."""
    default_dtype = "float32" if model == "gmr-tiny" else "bfloat16"
    letters = _names("workload", workloads, (*DESCRIPTIONS, *RETURNING))
    returning = letters[0] in RETURNING
    if any((letter in RETURNING) != returning for letter in letters):
        raise BenchRefused(
            f"{' and '.join(RETURNING)} have checkpoints of their own: run them apart from others."
        )

    known = RETURNING_CONTENDERS if returning else CONTENDERS
    default = ",".join(RETURNING_CONTENDERS if returning else _DEFAULT_CONTENDERS)
    plan = Plan(
        model=model,
        contenders=_names("contender", contenders or default, known),
        workloads=letters,
        callers=_numbers(callers),
        samples=samples,
        documents=documents,
        dtype=_name("dtype", dtype or default_dtype, DTYPES),
        device=_name("device", device, DEVICES),
        engine=_name("engine", engine, ENGINES),
        quantization=quantization,
        python_vllm=_python(python_vllm),
        output=output,
        prompts=_names("prompt", prompts, PROMPTS) if returning else (),
        pool=pool if returning else 0,
        workers=workers,
    )
    if returning and not documents <= pool <= MAX_POOL:
        raise BenchRefused(f"The pool has from --documents to {MAX_POOL} documents.")
    if model not in (GENERATED, *SIZES):
        expect_named(model)

    on_torch = [name for name in plan.contenders if name not in ON_VLLM]
    if plan.random_weights and on_torch:
        raise BenchRefused(f"{model} has no weights: leave out {', '.join(on_torch)}.")
    if quantization and on_torch:
        raise BenchRefused(f"Only vLLM quantises: leave out {', '.join(on_torch)}.")
    return plan


def _name(kind: str, typed: str, known: Sequence[str]) -> str:
    """The first name of a list with commas."""
    return _names(kind, typed, known)[0]


def _names(kind: str, typed: str, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in typed.split(",")))
    for name in names:
        if name not in known:
            raise BenchRefused(f"There is no {kind} {name!r}: choose from {', '.join(known)}.")

    return names


def _numbers(typed: str) -> tuple[int, ...]:
    numbers: dict[int, None] = {}
    for part in typed.split(","):
        text = part.strip()
        number = int(text) if text.isascii() and text.isdecimal() else 0
        if not 1 <= number <= MAX_CALLERS:
            raise BenchRefused(
                f"Callers are whole numbers from 1 to {MAX_CALLERS}, comma-separated."
            )
        numbers[number] = None

    return tuple(numbers)


def _python(given: Path | None) -> str:
    """The interpreter that has vLLM. Its path is kept as given: following an environment's link
    would leave the environment."""
    if given is None:
        return str(_PROJECT_PYTHON_VLLM) if _PROJECT_PYTHON_VLLM.exists() else sys.executable

    if not os.access(given, os.X_OK) or given.is_dir():
        raise BenchRefused(f"There is no interpreter {given}.")
    return str(given)
