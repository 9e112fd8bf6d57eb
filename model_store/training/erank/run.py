"""One run of either stage: check everything, learn step by step, save states, leave an adapter.

Depends on the order of these, not on their details. Invariant: the folder's `manifest.json` is
written last, so a run that has one is complete. A run that was killed goes on from its newest saved
state: stage 1 to the same weights bit by bit, and on a CPU stage 2 as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from model_store.adapters.folder import FROZEN_ROWS, READ_OUT, ROWS, TEMPLATE
from model_store.checkpoint import Checkpoint
from model_store.files import sha256
from model_store.folders.covered_files import ADAPTER_WEIGHTS
from model_store.manifest import CheckpointUnusable
from model_store.training import state
from model_store.training.config import TrainingError
from model_store.training.data.validation import refuse_bad_rows
from model_store.training.erank import grpo, sft
from model_store.training.erank.checkpoints import PREFIX, latest, written_by
from model_store.training.erank.config import ErankRun, GeneratedRun
from model_store.training.erank.pairs import PairRenderer, open_checkpoint
from model_store.training.erank.plots import draw
from model_store.training.erank.stage import Stage
from model_store.training.erank.watching import Watch, refuse_several_processes, stopped_by
from model_store.training.journal import Journal
from model_store.training.lora import checked_settings
from model_store.training.outcome import (
    Ended,
    finished,
    refuse_other_method,
    refuse_other_run,
    write_run,
)
from model_store.training.precision import choose_precision
from model_store.training.progress import ProgressLog
from model_store.training.reranker import load_network
from model_store.training.signals import Stopped, deferred_signals

STATES = "states"


@dataclass(frozen=True, slots=True)
class _Opened:
    run: ErankRun
    checkpoint: Checkpoint
    renderer: PairRenderer
    stage: Stage
    facts: dict[str, Any]
    notice: str | None


def train(run: ErankRun, *, stream: TextIO | None = None) -> Path:
    """Run a stage to its end, from the newest saved state if there is one; returns its folder.

    Leaves there what a run with the unified loss leaves: `adapter/`, `metrics.jsonl`,
    `training.png` and `manifest.json`. Progress goes to `stream`, or to standard error. Raises
    `TrainingError` and `DataError`, before the first step where the fault can be known then, and
    `Stopped`.
    """
    refuse_several_processes(int(os.environ.get("WORLD_SIZE", "1")))
    with deferred_signals() as signals:
        opened = _open(run)
        if not finished(run.output, opened.facts):
            _learn(opened, signals, stream)
    return run.output


def check(run: ErankRun) -> int:
    """Check all that can be checked without weights; returns the number of pairs."""
    return _open(run).stage.pairs


def _open(run: ErankRun) -> _Opened:
    """Read and check everything but weights; raises `TrainingError` and `DataError`."""
    run, notice = _with_precision(run)
    checkpoint = open_checkpoint(run.model, run.revision, run.family)
    renderer = PairRenderer(checkpoint, run.data.max_tokens)
    refuse_bad_rows(run.data.train)
    if isinstance(run, GeneratedRun):
        stage: Stage = sft.open_stage(run, renderer)
    else:
        stage = grpo.open_stage(run, renderer)
    facts = {
        **run.decisive_settings(),
        "base": checkpoint.digest,
        "train": sha256(run.data.train),
        **stage.facts,
    }
    return _Opened(run, checkpoint, renderer, stage, facts, notice)


def _with_precision(run: ErankRun) -> tuple[ErankRun, str | None]:
    """The run with the precision that the machine is to compute in, and a notice on the choice."""
    if run.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device is cuda, but this machine has no usable GPU.")
    on_gpu = run.device != "cpu" and torch.cuda.is_available()
    precision, notice = choose_precision(run.precision, "cuda" if on_gpu else "cpu")
    return run.model_copy(update={"precision": precision}), notice


def _learn(opened: _Opened, signals: Sequence[int], stream: TextIO | None) -> None:
    run, stage, states = opened.run, opened.stage, opened.run.output / STATES
    refuse_other_method(run.output, states, state.PREFIX)
    saved, removed = latest(states)
    if saved is not None:
        refuse_other_run(saved.run, opened.facts, run.output)
    done = saved.step if saved else 0

    run.output.mkdir(parents=True, exist_ok=True)
    disable_progress_bar()
    set_verbosity_error()
    torch.manual_seed(run.seed)
    network = _load(opened)
    with ProgressLog(
        done, stage.steps, every=run.report_every, shown=True, stream=stream
    ) as progress:
        for line in (opened.notice, *removed):
            if line is not None:
                progress.line(line)
        progress.line(f"{stage.pairs} pairs, {stage.steps} steps, {done} of them done.")
        maps = checked_settings(network, run.lora, opened.renderer.architecture)
        # the journal first: a stage reads its rows, and those behind the saved step are gone then
        journal = Journal(run.output, done, tensorboard=run.tensorboard)
        try:
            trainer = stage.trainer(network, maps, states, progress)
            watch = Watch(journal, progress, states, opened.facts, stage.row, stage.shown, signals)
            trainer.add_callback(watch)
            step = _steps(trainer, states, done, stage.steps)
        finally:
            journal.close()

    if step < stage.steps:
        raise Stopped(stopped_by(signals), step)
    draw(run.output)
    _write(opened, trainer.model)


def _steps(trainer: Any, states: Path, done: int, steps: int) -> int:
    """Make the steps that are left; returns the last one that is made.

    A run that was killed behind its last step has its maps loaded, and makes none.
    """
    newest = states / f"{PREFIX}{done}"
    if done < steps:
        with written_by(trainer, states):
            trainer.train(resume_from_checkpoint=str(newest) if done else None)
        return int(trainer.state.global_step)

    maps = load_file(newest / ADAPTER_WEIGHTS)
    set_peft_model_state_dict(trainer.model, maps)
    return done


def _load(opened: _Opened) -> Any:
    """The base's network; raises `TrainingError`."""
    bf16 = opened.run.precision == "bf16"
    try:
        network = load_network(opened.checkpoint, torch.bfloat16 if bf16 else torch.float32)
    except CheckpointUnusable as error:
        raise TrainingError(str(error)) from error
    on_cpu = opened.run.device == "cpu" or not torch.cuda.is_available()
    return network.to("cpu" if on_cpu else "cuda")


def _write(opened: _Opened, network: Any) -> None:
    """Write adapter and manifest; raises `TrainingError`."""
    run, base = opened.run, opened.checkpoint
    lora: Mapping[str, torch.Tensor] = {
        name: parameter.detach().cpu()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
    read_out = opened.renderer.readout.name
    described = {
        "run": opened.facts,
        "config": run.model_dump(mode="json"),
        "base": {"name": base.name, "digest": base.digest},
        "read_out": read_out,
        "head": {"kind": FROZEN_ROWS, "words": []},
    }
    metadata = {READ_OUT: read_out, ROWS: FROZEN_ROWS, TEMPLATE: base.manifest.template}
    write_run(
        run.output,
        cast(Any, network),
        lora,
        model=run.model,
        metadata=metadata,
        described=described,
        ended=Ended(opened.stage.steps, opened.stage.steps, "All steps are made."),
    )
