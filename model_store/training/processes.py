"""The processes of a run: a process's share, the exchange of gradients, agreement on failures.

Depends on accelerate and torch's distributed parts, not on data or a loss. Invariant: between two
synchronised backward passes all processes hold equal weights, and a failure or a signal in one of
them reaches all in the same step.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, gather_object
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from model_store.errors import DataError
from model_store.training.config import TrainConfig, TrainingError
from model_store.training.order import Share
from model_store.training.reranker import Reranker

_GATHERED = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
_TIMEOUT = timedelta(hours=4)
"""For a collective: the others wait in one while the leading process checks all data."""


class Processes:
    """This process among those that torchrun started, or alone without torchrun.

    Raises `TrainingError` where the processes do not fit the configuration or the machine.
    """

    def __init__(self, config: TrainConfig) -> None:
        if config.device == "cuda" and not torch.cuda.is_available():
            raise TrainingError("device is cuda, but this machine has no usable GPU.")

        on_cpu = config.device == "cpu" or not torch.cuda.is_available()
        # Buffers do not change, and processes run the network unequally often: a broadcast of
        # buffers would make one wait for another.
        plain = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        self._accelerator = Accelerator(
            cpu=on_cpu, kwargs_handlers=[plain, InitProcessGroupKwargs(timeout=_TIMEOUT)]
        )
        self.device = self._accelerator.device
        self.share = Share(self._accelerator.process_index, self._accelerator.num_processes)
        self.leads = self._accelerator.is_main_process
        self._split = config.strategy == "fsdp" and self.share.world > 1

        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started != self.share.world:
            raise TrainingError(
                f"{started} processes were started, and they found no way to each other; use"
                " torchrun."
            )
        if config.batch.examples < self.share.world:
            raise TrainingError(
                f"batch.examples is {config.batch.examples}, too few for {self.share.world}"
                " processes."
            )

    def spread(self, model: Reranker) -> nn.Module:
        """The model as all processes train it together."""
        if self.share.world == 1:
            return model
        if not self._split:
            # torch renames broadcast_buffers
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                wrapped: nn.Module = self._accelerator.prepare_model(model)
            return wrapped

        # By torch itself: accelerate splits weights on accelerators only, and tests run on CPUs.
        mesh = init_device_mesh(self.device.type, (self.share.world,))
        for layer in model.layers():
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model

    @contextmanager
    def backward(self, model: nn.Module, *, last: bool) -> Iterator[None]:
        """Around a backward pass: gradients of all processes meet after the step's last one."""
        if isinstance(model, DistributedDataParallel) and not last:
            with model.no_sync():
                yield
            return

        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(last)
        yield

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        if self.share.world == 1:
            return list(values)

        summed: list[float] = self._accelerator.reduce(
            torch.tensor(values, dtype=torch.float64, device=self.device), "sum"
        ).tolist()
        return summed

    def idle_runs(self, runs: int) -> int:
        """Runs of the network that this process, with `runs` of its own, must add for the others.

        Where weights are split, each run gathers them from all processes, so that all must run it
        equally often. Elsewhere the answer is 0.
        """
        if not self._split:
            return 0

        gathered = self._accelerator.gather(torch.tensor([runs], device=self.device))
        return int(gathered.max()) - runs

    def collect(self, items: list[Any]) -> list[Any]:
        """The items of all processes, in every one of them."""
        collected: list[Any] = gather_object(items) if self.share.world > 1 else items
        return collected

    def agree(self, problem: str | None) -> str | None:
        """The first problem of all processes in the order of their ranks, so that all stop."""
        for found in self.collect([problem]):
            if found is not None:
                return cast(str, found)
        return None

    def alone(self, work: Callable[[], None]) -> None:
        """Run `work` in the leading process; an error that stops it is raised in all processes."""
        failed: list[Exception | None] = [None]
        if self.leads:
            try:
                work()
            except (TrainingError, DataError) as error:
                failed[0] = error

        for error_of_any in self.collect(failed):
            if error_of_any is not None:
                raise error_of_any

    def end(self) -> None:
        """Leave the process group."""
        if torch.distributed.is_initialized():
            self._accelerator.end_training()


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The trained tensors by their names in the `Reranker`, gathered on the CPU; empty except in
    the leading process."""
    trained = {
        name.removeprefix("module.")  # of the wrapper of several processes
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    gathered = get_model_state_dict(model, options=_GATHERED)
    # a frozen tensor that has two names is gathered under one of them
    return {name: cast(Tensor, gathered[name]) for name in gathered if name in trained}


def moments_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state by parameter names, gathered on the CPU; empty except in the leading
    process."""
    return get_optimizer_state_dict(model, optimizer, options=_GATHERED)


def set_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load what `weights_of` returned, the same in every process; raises `TrainingError`."""
    options = StateDictOptions(full_state_dict=True, strict=False)
    missing = set_model_state_dict(model, dict(weights), options=options)
    if missing.unexpected_keys:
        raise TrainingError(
            f"the saved state holds {missing.unexpected_keys[0]}, which this network has not."
        )


def set_moments(
    model: nn.Module, optimizer: torch.optim.Optimizer, moments: dict[str, Any]
) -> None:
    """Load what `moments_of` returned, the same in every process."""
    set_optimizer_state_dict(
        model, optimizer, moments, options=StateDictOptions(full_state_dict=True)
    )
