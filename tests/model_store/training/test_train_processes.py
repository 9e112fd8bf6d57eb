"""Runs in processes of their own: killed and resumed, and several that learn together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from model_store.training.config import TrainConfig, TrainingError
from model_store.training.journal import read_metrics
from model_store.training.processes import Processes
from model_store.training.state import latest
from model_store.training.train import train
from tests.model_store.training.colours import write_colours
from tests.model_store.training.test_train import adapter, settings

pytestmark = pytest.mark.slow
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
STEPS = 8


def written(folder: Path, name: str, values: dict[str, Any]) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values | {"output": str(folder / name)}))
    return path


def run_until(config: Path, step: int, number: signal.Signals) -> tuple[int, int]:
    """Start a run and send it a signal once it has said that it did `step`; gives its exit code and
    the last step it told of."""
    command = [sys.executable, "-m", "model_store.training", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        told = 0
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.match(r"step (\d+)/", line):
                told = int(found[1])
                if told == step:
                    process.send_signal(number)
        return process.wait(), told


def test_a_run_that_was_stopped_and_killed_leaves_the_same_weights_to_the_bit(
    tmp_path: Path,
) -> None:
    write_colours(tmp_path, "dev.jsonl", rows=3, asks="show me")
    early_stop = {"patience": 100}
    values = settings(tmp_path, steps=STEPS, save_every=3, evaluate_every=2, early_stop=early_stop)
    values["data"]["dev"] = str(tmp_path / "dev.jsonl")
    undisturbed = train(
        TrainConfig.model_validate(values | {"output": str(tmp_path / "undisturbed")}),
        stream=StringIO(),
    )
    values["data"]["workers"] = 1  # ahead of the network, which must not matter
    disturbed = written(tmp_path, "disturbed", values)
    first = Random(os.getpid()).randint(1, 3)
    assert run_until(disturbed, first, signal.SIGTERM)[0] == 143
    code, _ = run_until(
        disturbed, Random(os.getpid() + 1).randint(first + 2, STEPS - 1), signal.SIGKILL
    )
    assert code == -signal.SIGKILL
    assert not (tmp_path / "disturbed" / "manifest.json").exists()
    run = train(
        TrainConfig.model_validate(yaml.safe_load(disturbed.read_text())), stream=StringIO()
    )
    ours, theirs = adapter(run), adapter(undisturbed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    mine, wanted_state = (latest(folder / "states")[0] for folder in (run, undisturbed))
    assert mine is not None
    assert wanted_state is not None
    assert mine.step == STEPS
    assert mine.best is not None
    assert wanted_state.best is not None
    assert mine.best.evaluations == wanted_state.best.evaluations
    assert all(torch.equal(mine.weights[name], wanted_state.weights[name]) for name in mine.weights)
    assert mine.moments["param_groups"][0]["lr"] == wanted_state.moments["param_groups"][0]["lr"]
    for name, moments in wanted_state.moments["state"].items():
        assert all(
            torch.equal(mine.moments["state"][name][key], value) for key, value in moments.items()
        )
    rows, wanted = (
        [row | {"seconds": 0} for row in read_metrics(folder)] for folder in (run, undisturbed)
    )
    assert rows == wanted


@pytest.mark.parametrize(("strategy", "shared"), [("ddp", False), ("fsdp", True)])
def test_two_processes_learn_what_one_learns(
    tmp_path: Path, strategy: str, *, shared: bool
) -> None:
    write_colours(tmp_path, "dev.jsonl", rows=3, asks="show me")
    plain = {"rank": 4, "alpha": 8, "dropout": 0.0}
    # Shares of unequal size: a budget that one process's longer groups exceed, so that they go in
    # pieces.
    batch = {"examples": 4, "tokens": 320, "checkpointing": True, "shared_prefix": shared}
    values = settings(
        tmp_path,
        steps=9,
        lora=plain,
        batch=batch,
        head={"kind": "trainable"},
        strategy=strategy,
        save_every=2,
        evaluate_every=1,
        early_stop={"patience": 2, "least_gain": 0.99},
    )
    values["data"] |= {"dev": str(tmp_path / "dev.jsonl"), "max_tokens": 256}
    alone = train(
        TrainConfig.model_validate(values | {"output": str(tmp_path / "alone")}), stream=StringIO()
    )
    together = tmp_path / "together"
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "model_store.training",
    ]
    command = [*torchrun, str(written(tmp_path, "together", values))]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stderr
    ours, theirs = adapter(together), adapter(alone)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert torch.allclose(ours[name], theirs[name], rtol=1e-3, atol=2e-5), name
    heads = [load_file(run / "head.safetensors")["rows"] for run in (together, alone)]
    assert torch.allclose(*heads, rtol=1e-3, atol=1e-5)
    for row, wanted in zip(read_metrics(together), read_metrics(alone), strict=True):
        # a picture counts once a batch, and so does a shared prefix
        packing = {"seconds", "images", *(["tokens"] if shared else [])}
        same = wanted.keys() - packing
        assert {name: row[name] for name in same} == pytest.approx(
            {name: wanted[name] for name in same}, rel=1e-3, abs=1e-5
        )
    manifest = json.loads((together / "manifest.json").read_text())
    assert manifest["ended"]["step"] == 2
    assert manifest["ended"] == json.loads((alone / "manifest.json").read_text())["ended"]
    assert manifest["head"] == {"kind": "trainable", "words": ["yes", "no"]}


def test_processes_that_found_no_way_to_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig.model_validate(settings(tmp_path))
    assert Processes(config).share.world == 1
    # what a launcher says that started two, of which each believes to be alone
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        TrainingError, match="2 processes were started, and they found no way to each other"
    ):
        Processes(config)
