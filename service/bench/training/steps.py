"""Steps of a training run, one for each line of standard input: the program that `gmr bench
--training` starts for each way of training.

Its arguments are a configuration, a number of threads and a file. After loading it prints a line,
and then a line of JSON for each step; the gradient of the first step goes to the file. Depends on
the training job alone. Invariant: a step is the job's own, from units to the gradient; groups are
rendered before it, as a run's `data.workers` do.
"""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from model_store.training.config import load_config
from model_store.training.gradient import Learner
from model_store.training.processes import Processes
from model_store.training.reranker import load_reranker
from model_store.training.sources import open_sources

_SPREAD = 0.02
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


def main() -> None:
    """Load, and make a step for each line."""
    name, threads, gradients = sys.argv[1:4]
    torch.set_num_threads(int(threads))
    config = load_config(name)
    processes, sources = Processes(config), open_sources(config, 1)
    model = load_reranker(config, sources.checkpoint, processes.device).train()
    _begin_maps(model)
    learner = Learner(model, config.loss, processes, config.seed)
    # once: memory that a step has freed stays with the process, and a later one gets it again
    resting = _reset_peak(processes.device)
    _say(loaded=True)

    for line in sys.stdin:
        number = int(line)
        units = sources.batcher.units([sources.grouper.group(sources.examples[number], 0)])
        model.zero_grad(set_to_none=True)
        began, used = time.perf_counter(), time.process_time()
        statistics = learner.learn(units, number + 1, 1)
        if processes.device.type == "cuda":
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
        if number == 0:
            save_file(_gradients(model), gradients)
        _say(
            pairs=sum(sum(unit.sizes) for unit in units),
            tokens=statistics.sums["tokens"],
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            steps_mib=_peak_mib(processes.device) - resting,
        )


def _begin_maps(model: nn.Module) -> None:
    """Give B of each low-rank map values, as after some steps: from 0, A has no gradient."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=_SPREAD)


def _gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[name] = parameter.grad.cpu().contiguous()
    return found


def _reset_peak(device: torch.device) -> float:
    """Begin a new peak of memory, and return the memory at rest, in MiB.

    Where the system refuses that of a process, its peak counts from the start.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_mib(device)


def _peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    found = _PEAK.search(Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1024


def _say(**values: float) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
