"""One run of the training job: check everything, then learn step by step, saving now and then, and
leave an adapter.

Knows the order of things, none of their details. Invariant: a run that was killed and started again
leaves the weights, to the bit, that it would have left undisturbed; its folder's `manifest.json` is
written last, so where it is, the run is complete.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any, TextIO

import torch

from model_store.training import state
from model_store.training.config import TrainConfig
from model_store.training.loop import STATES, Loop
from model_store.training.outcome import finished, leave, same_run
from model_store.training.plots import draw
from model_store.training.precision import settle
from model_store.training.processes import Processes, set_moments, set_weights, weights_of
from model_store.training.progress import Bar
from model_store.training.reranker import load_reranker
from model_store.training.sources import Sources, open_sources

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def train(config: TrainConfig, *, stream: TextIO | None = None) -> Path:
    """Run `config` to its end, from the newest saved state if there is one; gives the run's folder.

    Leaves there `adapter/` (peft's folder), `metrics.jsonl`, `training.png`, `manifest.json`, and
    `head.safetensors` where a head was trained; a run that is complete already is left as it is.
    Raises `TrainingError` and `DataError`, before the first step where what is wrong can be known
    then, and `loop.Stopped`.
    """
    with _listening() as heard:
        processes = Processes(config)
        try:
            config, said = _settled(config, processes)
            sources = open_sources(config, processes.share.world)
            facts = {**config.deciding(), **sources.facts()}
            if not finished(config.output, facts):
                processes.alone(sources.check)
                _learn(config, processes, sources, facts, heard, stream, said=said)
        finally:
            processes.end()
    return config.output


def check(config: TrainConfig) -> int:
    """Everything that can be known to be wrong before a weight is loaded, and how many examples
    there are."""
    sources = open_sources(config, 1)
    sources.check()
    return len(sources.examples)


def _settled(config: TrainConfig, processes: Processes) -> tuple[TrainConfig, list[str]]:
    """The configuration with its precision settled, alike in all processes, and what there is to
    say of it."""
    precision, said = settle(config.precision, processes.device.type)
    if "fp32" in processes.collect([precision]):
        precision = "fp32"
    return config.model_copy(update={"precision": precision}), [said] if said else []


def _learn(
    config: TrainConfig,
    processes: Processes,
    sources: Sources,
    facts: dict[str, Any],
    heard: list[int],
    stream: TextIO | None,
    *,
    said: list[str],
) -> None:
    saved, damaged = state.latest(config.output / STATES)
    if saved is not None:
        same_run(saved.run, facts, config.output)
    reranker = load_reranker(config, sources.checkpoint, processes.device)
    model = processes.spread(reranker)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    settings = config.optimizer
    optimizer = torch.optim.AdamW(
        trained, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    done = 0
    if saved is not None:
        set_weights(model, saved.weights)
        set_moments(model, optimizer, saved.moments)
        done = saved.step
    steps = config.steps or max(
        1, round(config.epochs * len(sources.examples) / config.batch.examples)
    )
    with Bar(done, steps, every=config.report_every, shown=processes.leads, stream=stream) as bar:
        for sentence in (
            *said,
            *damaged,
            f"{len(sources.examples)} examples, {steps} steps, {done} of them done.",
        ):
            bar.say(sentence)
        Loop(config, processes, sources, model, optimizer, facts, heard).run(done, steps, bar)
    weights = weights_of(model)

    def finish() -> None:
        draw(config.output)
        leave(
            config.output,
            reranker.network,
            weights,
            base=sources.checkpoint,
            config=config,
            facts=facts,
        )

    processes.alone(finish)


@contextmanager
def _listening() -> Iterator[list[int]]:
    """Signals that ask to stop, instead of their doing so in the middle of a step; a second one
    does."""
    heard: list[int] = []
    if current_thread() is not main_thread():
        yield heard
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        for each in _SIGNALS:
            signal.signal(each, before[each])

    try:
        for number in _SIGNALS:
            signal.signal(number, hear)
        yield heard
    finally:
        for number in _SIGNALS:
            signal.signal(number, before[number])
