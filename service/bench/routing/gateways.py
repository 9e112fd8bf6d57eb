"""Two workers, and one gateway for each way of routing, all in front of the same workers.

Depends on the commands that start them, on no routing rule: each gateway is set to one. Invariant:
all programs are ready when they are handed over, and the context's end stops them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from service.bench.calls import free_url
from service.bench.plan import Plan
from service.bench.programs import Program, started
from service.bench.routing.report import WORKERS
from service.bench.service import gmr, inherited_environment, is_ready

_ROUTINGS = {
    "whole": {"RERANK_SPLIT": "never"},
    "split": {"RERANK_SPLIT": "always"},
    "least_loaded": {"RERANK_SPLIT": "never", "RERANK_ROUTING": "least_loaded"},
}
"""A gateway's settings by its way of routing."""


@contextmanager
def running_gateways(checkpoint: Path, plan: Plan) -> Iterator[dict[str, str]]:
    """The URLs of the gateways by their way of routing.

    Each worker has one thread, on a core of its own: vLLM would put all workers on one core.
    """
    common = inherited_environment() | {"RERANK_LOG_LEVEL": "warning"}
    cores = cycle(sorted(os.sched_getaffinity(0)))
    python = plan.python_vllm if plan.engine == "vllm" else sys.executable
    with ExitStack() as stack:
        logs = Path(stack.enter_context(TemporaryDirectory()))
        programs: dict[str, Program] = {}

        def start(role: str, command: list[str], environment: dict[str, str], url: str) -> None:
            program = started(role, command, environment, logs / role)
            programs[url] = stack.enter_context(program)

        worker_urls = []
        for number in range(WORKERS):
            url = free_url()
            environment = common | {
                "RERANK_MODEL": str(checkpoint),
                "RERANK_ENGINE": plan.engine,
                "RERANK_THREADS": "1",
                "VLLM_CPU_OMP_THREADS_BIND": str(next(cores)),
            }
            start(f"worker-{number}", gmr(python, "worker", url=url), environment, url)
            worker_urls.append(url)

        gateways = {}
        for name, settings in _ROUTINGS.items():
            url = free_url()
            environment = common | {"RERANK_WORKERS": ",".join(worker_urls)} | settings
            start(name, gmr(sys.executable, "gateway", url=url), environment, url)
            gateways[name] = url

        for url, program in programs.items():
            program.await_ready(partial(is_ready, url))
        yield gateways
