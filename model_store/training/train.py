"""One run of the training job: check everything, learn step by step, save states, leave an adapter.

Depends on the order of these, not on their details. Invariant: a run that was killed and started
again leaves the weights, to the bit, of an undisturbed run. The folder's `manifest.json` is written
last, so a run that has one is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch

from model_store.training import state
from model_store.training.config import TrainConfig
from model_store.training.early_stop import EarlyStop
from model_store.training.erank import checkpoints
from model_store.training.loop import STATES, Loop
from model_store.training.outcome import (
    Ended,
    finished,
    refuse_other_method,
    refuse_other_run,
    write_outcome,
)
from model_store.training.plots import draw
from model_store.training.precision import CPUINFO, choose_precision
from model_store.training.processes import Processes, set_moments, set_weights, weights_of
from model_store.training.progress import ProgressLog
from model_store.training.reranker import load_reranker
from model_store.training.signals import deferred_signals
from model_store.training.sources import Sources, open_sources


def train(
    config: TrainConfig,
    *,
    stream: TextIO | None = None,
    open_processes: Callable[[TrainConfig], Processes] = Processes,
    cpuinfo: Path = CPUINFO,
) -> Path:
    """Run `config` to its end, from the newest saved state if there is one; returns its folder.

    Leaves there `adapter/` (peft's folder), `metrics.jsonl`, `training.png`, `manifest.json`, and
    `head.safetensors` where a head was trained; a complete run is left as it is. Progress goes to
    `stream`, or to standard error; `cpuinfo` lists the CPU's instructions, as Linux does.

    Raises `TrainingError` and `DataError`, before the first step where the fault can be known then,
    and `loop.Stopped`.
    """
    with deferred_signals() as signals:
        processes = open_processes(config)
        try:
            config, notice = _with_precision(config, processes, cpuinfo)
            sources = open_sources(config, processes.share.world)
            facts = {**sources.config.decisive_settings(), **sources.facts()}
            if not finished(config.output, facts):
                refuse_other_method(config.output, config.output / STATES, checkpoints.PREFIX)
                processes.alone(sources.check)
                _learn(processes, sources, facts, signals, stream, notice=notice)
        finally:
            processes.end()
    return config.output


def check(config: TrainConfig) -> int:
    """Check all that can be checked without weights; returns the number of examples."""
    sources = open_sources(config, 1)
    sources.check()
    return len(sources.examples)


def _with_precision(
    config: TrainConfig, processes: Processes, cpuinfo: Path
) -> tuple[TrainConfig, str | None]:
    """The configuration with one precision for all processes, and a notice on the choice."""
    precision, notice = choose_precision(config.precision, processes.device.type, cpuinfo)
    if "fp32" in processes.collect([precision]):
        precision = "fp32"
    return config.model_copy(update={"precision": precision}), notice


def _learn(
    processes: Processes,
    sources: Sources,
    facts: dict[str, Any],
    signals: list[int],
    stream: TextIO | None,
    *,
    notice: str | None,
) -> None:
    config = sources.config
    saved, damaged = state.latest(config.output / STATES)
    if saved is not None:
        refuse_other_run(saved.run, facts, config.output)

    reranker = load_reranker(config, sources.checkpoint, processes.device)
    model = processes.spread(reranker)
    model.train()
    settings = config.optimizer
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    done = 0
    if saved is not None:
        set_weights(model, saved.weights)
        set_moments(model, optimizer, saved.moments)
        done = saved.step

    examples = len(sources.examples)
    steps = config.steps or max(1, round(config.epochs * examples / config.batch.examples))
    with ProgressLog(
        done, steps, every=config.report_every, shown=processes.leads, stream=stream
    ) as progress:
        if notice is not None:
            progress.line(notice)
        if config.batch.shared_prefix and not sources.batcher.packs:
            progress.line(
                "batch.shared_prefix: this model's prompts do not begin with the query, so that the"
                " pairs of a group share nothing."
            )
        for sentence in damaged:
            progress.line(sentence)
        progress.line(f"{examples} examples, {steps} steps, {done} of them done.")
        early_stop = None
        if config.early_stop is not None:
            early_stop = EarlyStop(config.early_stop, None if saved is None else saved.best)
        loop = Loop(config, processes, sources, model, optimizer, facts, signals, early_stop)
        ended = _ended(loop.run(done, steps, progress), early_stop)
        if early_stop is not None:
            progress.line(ended.reason)

    weights = weights_of(model)
    if early_stop is not None and early_stop.best is not None:
        weights = early_stop.best.weights

    def finish() -> None:
        draw(config.output)
        write_outcome(
            config.output,
            reranker.network,
            weights,
            base=sources.checkpoint,
            config=config,
            facts=facts,
            ended=ended,
        )

    processes.alone(finish)


def _ended(step: int, early_stop: EarlyStop | None) -> Ended:
    """The end of a run after its last step, and the step whose weights it leaves."""
    if early_stop is None or early_stop.best is None:
        return Ended(step, step, "All steps are made.")

    best = early_stop.best.evaluations
    if early_stop.is_over:
        return Ended(step, best.best_step, early_stop.reason())
    return Ended(
        step,
        best.best_step,
        f"All steps are made; nDCG@10 of held-out rows was best, {best.best_ndcg:.4f}, after step"
        f" {best.best_step}, whose weights are left.",
    )
