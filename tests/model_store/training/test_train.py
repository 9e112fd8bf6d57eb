"""Whole runs on gmr-tiny: what is learnt, what is left, and what happens to a run that is stopped,
killed, or wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from model_store.adapters.folder import read_adapter
from model_store.checkpoint import resolve
from model_store.commands.train import register
from model_store.errors import DataError
from model_store.families.tokens import LiteralTokenizer
from model_store.training.config import TrainConfig, TrainingError
from model_store.training.journal import read_metrics
from model_store.training.not_finite import NotFinite
from model_store.training.processes import Processes
from model_store.training.reranker import Reranker
from model_store.training.signals import Stopped
from model_store.training.state import latest, save
from model_store.training.train import check, train
from tests.conftest import TINY
from tests.layouts import Layout, put, stated, write_layout
from tests.model_store.training.colours import write_colours

pytestmark = pytest.mark.slow


def settings(folder: Path, **values: Any) -> dict[str, Any]:
    """A small run on `folder/train.jsonl`."""
    if not (folder / "train.jsonl").exists():
        write_colours(folder)
    return {
        "model": str(TINY),
        "output": str(folder / "run"),
        "data": {
            "train": str(folder / "train.jsonl"),
            "negatives": 3,
            "random_share": 0.34,
            "max_tokens": 512,
        },
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
        "optimizer": {"learning_rate": 1e-3, "warmup": 0.1},
        "batch": {"examples": 2, "tokens": 2048, "checkpointing": False},
        "steps": 6,
        "precision": "fp32",
        "device": "cpu",
        "save_every": 2,
        "report_every": 1,
    } | values


def config(folder: Path, **values: Any) -> TrainConfig:
    return TrainConfig.model_validate(settings(folder, **values))


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


class Interrupting(StringIO):
    """Sends this process a signal once it is told of a step, as an operator who reads along
    would."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__()
        self._line, self._number = f"step {step}/", number

    def write(self, text: str) -> int:
        if self._line in text:
            os.kill(os.getpid(), self._number)
        return super().write(text)


def test_a_run_learns_made_up_words_and_leaves_its_best_state(tmp_path: Path) -> None:
    write_colours(tmp_path, "dev.jsonl", rows=4, asks="show me")
    data = settings(tmp_path)["data"] | {"dev": str(tmp_path / "dev.jsonl")}
    learning = {
        "lora": {"rank": 16, "alpha": 32},
        "batch": {"examples": 4, "tokens": 4096},
        "evaluate_every": 15,
        "early_stop": {"patience": 2},
        "precision": "bf16",
    }
    shown = StringIO()
    run = train(
        config(
            tmp_path,
            data=data,
            steps=120,
            save_every=90,
            report_every=20,
            tensorboard=True,
            **learning,
        ),
        stream=shown,
    )
    rows = [row for row in read_metrics(run) if "sft" in row]
    looks = [row for row in read_metrics(run) if "dev_sft" in row]
    ended = json.loads((run / "manifest.json").read_text())["ended"]
    assert [row["step"] for row in rows] == list(range(1, ended["step"] + 1))
    assert [row["step"] for row in looks] == list(range(0, ended["step"] + 1, 15))
    assert (looks[0]["dev_ndcg"], looks[-1]["dev_ndcg"]) == (pytest.approx(0.5, abs=0.35), 1.0)
    assert ended["step"] == ended["weights_of_step"] + 2 * 15 < 120
    first = next(row["step"] for row in looks if row["dev_ndcg"] == 1.0)
    assert (ended["weights_of_step"], looks[-1]["best_step"]) == (first, first)
    assert ended["reason"] in shown.getvalue()

    last = [row["sft"] for row in rows[-8:]]
    assert rows[0]["sft"] > 2
    assert sum(last) / len(last) < 0.5
    assert 0 <= rows[-1]["positive_weight"] < rows[0]["positive_weight"]
    assert (rows[0]["examples"], rows[0]["negatives"], rows[0]["missing"]) == (4, 12, 0)
    assert "step 40/120: loss" in shown.getvalue()

    board = EventAccumulator(str(run / "tensorboard")).Reload()
    for name, source in (("sft", rows), ("dev_ndcg", looks), ("dev_sft", looks)):
        assert [(event.step, event.value) for event in board.Scalars(name)] == [
            (row["step"], pytest.approx(row[name])) for row in source
        ]

    state, _ = latest(run / "states")
    assert state is not None
    assert state.best is not None
    left = adapter(run)
    assert len(state.best.weights) == len(left)
    for name, weight in state.best.weights.items():
        named = name.removeprefix("network.").replace(".default", "")
        assert torch.equal(left[named], weight)
    assert any(
        not torch.equal(weight, state.weights[name]) for name, weight in state.best.weights.items()
    )

    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["last"]["dev_sft"] == looks[first // 15]["dev_sft"]
    assert manifest["base"]["name"] == "gmr-tiny"
    assert set(manifest["files"]) == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "metrics.jsonl",
        "training.png",
    }
    assert all(".language_model." not in name or "lora_" in name for name in left)
    assert len(left) == 56


def test_nothing_but_the_maps_changes(tmp_path: Path) -> None:
    seen: list[Reranker] = []

    class Kept(Processes):
        def spread(self, model: Reranker) -> torch.nn.Module:
            seen.append(model)
            return super().spread(model)

    run = train(
        config(tmp_path, steps=2, optimizer={"learning_rate": 0.1, "weight_decay": 0.1}),
        stream=StringIO(),
        open_processes=Kept,
    )
    base = load_file(TINY / "model.safetensors")
    found = {
        name: value
        for name, value in seen[0].network.get_base_model().state_dict().items()
        if "lora_" not in name
    }
    same = {
        name.replace(".base_layer", "")
        .replace("model.language_model.", "model.")
        .replace("model.visual", "visual")
        for name in found
    }
    assert set(base) <= same
    for name, value in found.items():
        plain = (
            name.replace(".base_layer", "")
            .replace("model.language_model.", "model.")
            .replace("model.visual", "visual")
        )
        if plain in base:
            assert torch.equal(value, base[plain].float()), name
    assert any(
        float(value.abs().max()) > 0 for name, value in adapter(run).items() if "lora_B" in name
    )


def test_a_run_with_another_template_learns_from_it_and_states_it(tmp_path: Path) -> None:
    run = train(config(tmp_path, steps=1, template="document-first"), stream=StringIO())
    header = read_adapter(run / "adapter")
    assert (header.template, header.read_out) == ("document-first", "yes - no")
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["config"]["template"] == "document-first"
    assert manifest["base"]["digest"] == resolve("gmr-tiny").digest
    with pytest.raises(TrainingError, match=r"begun with another template \(document-first, now"):
        train(config(tmp_path, steps=1), stream=StringIO())
    with pytest.raises(TrainingError, match="the template 'document-last' is not known"):
        train(config(tmp_path, steps=1, template="document-last"), stream=StringIO())


def test_a_run_that_is_done_is_left_alone_and_another_one_refused(tmp_path: Path) -> None:
    run = train(config(tmp_path, steps=1), stream=StringIO())
    before = (run / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    assert train(config(tmp_path, steps=1, keep=5), stream=StringIO()) == run
    assert (run / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(
        TrainingError, match=r"begun with another lora.rank \(4, now 2\); choose another output"
    ):
        train(
            config(tmp_path, steps=1, lora={"rank": 2, "alpha": 8, "dropout": 0.1}),
            stream=StringIO(),
        )
    (tmp_path / "train.jsonl").write_text((tmp_path / "train.jsonl").read_text() + "\n")
    with pytest.raises(TrainingError, match="begun with another train "):
        train(config(tmp_path, steps=1), stream=StringIO())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_with_its_code(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(
        Stopped, match=f"Stopped by {number.name} after step 4; the same command goes on"
    ) as stopped:
        train(config(tmp_path, save_every=100), stream=Interrupting(3, number))
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert [path.name for path in (tmp_path / "run" / "states").iterdir()] == ["step-00000004"]
    assert not (tmp_path / "run" / "manifest.json").exists()


def with_weights(run: Path, step: int, value: float) -> None:
    """Write the state after a step anew, with one value throughout the first layer's maps."""
    state, _ = latest(run / "states")
    assert state is not None
    assert state.step == step
    for name, weight in state.weights.items():
        if ".layers.0.self_attn.q_proj.lora_" in name:
            weight.fill_(value)
    save(run / "states", step, state.run, state.weights, state.moments, keep=2)


def stopped_after(folder: Path, step: int) -> Path:
    with pytest.raises(Stopped):
        train(config(folder, save_every=1), stream=Interrupting(step - 1, signal.SIGTERM))
    return folder / "run"


def test_no_number_stops_the_run_by_name_and_saves_nothing(tmp_path: Path) -> None:
    run = stopped_after(tmp_path, 3)
    with_weights(run, 3, float("nan"))
    with pytest.raises(
        NotFinite,
        match=r"^Step 4: the loss is not finite; the examples are q\d \(.*train.jsonl:\d\), q\d \(",
    ):
        train(config(tmp_path, save_every=1), stream=StringIO())
    states = sorted(path.name for path in (run / "states").iterdir())
    assert states == ["step-00000002", "step-00000003"]

    shutil.rmtree(run / "states" / "step-00000003")
    train(config(tmp_path, save_every=1), stream=StringIO())


def test_a_gradient_that_overflows_stops_the_run_by_name(tmp_path: Path) -> None:
    run = stopped_after(tmp_path, 2)
    with_weights(run, 2, 1e14)
    with pytest.raises(NotFinite, match="Step 3: the gradient is not finite; the examples are q"):
        train(config(tmp_path, save_every=1), stream=StringIO())
    states = sorted(path.name for path in (run / "states").iterdir())
    assert states == ["step-00000001", "step-00000002"]


class Unused(Processes):
    def spread(self, model: Reranker) -> torch.nn.Module:
        raise AssertionError("a network was loaded")


def test_wrong_data_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in write_colours(tmp_path).read_text().splitlines()]
    rows[1]["positives"] = []
    rows[2]["negatives"] = []
    rows[4]["query"]["image"] = "../red.png"
    rows[6]["positives"] = [{"image": "missing.png"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError) as caught:
        train(config(tmp_path), stream=StringIO(), open_processes=Unused)
    places = [
        line.partition("train.jsonl:")[2].partition(":")[0]
        for line in str(caught.value).splitlines()
    ]
    assert places == ["2", "5", "7"]
    assert not (tmp_path / "run").exists()
    good = [row for at, row in enumerate(rows) if at not in (1, 4, 6)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, good)))
    with pytest.raises(DataError, match=r"train\.jsonl:2: there are no negatives of the kinds"):
        check(config(tmp_path))


def test_held_out_rows_that_are_learnt_are_refused(tmp_path: Path) -> None:
    """The query alone may be the same, and so may a positive: many documents answer several
    queries."""
    rows = [json.loads(line) for line in write_colours(tmp_path).read_text().splitlines()]
    held = [dict(row) for row in rows[3:6]]
    held[0]["query"] = {"text": "what is none of those"}
    held[1] = held[1] | {
        "id": "other",
        "query": {**held[1]["query"], "text": f" {held[1]['query']['text'].upper()} "},
    }
    held[2] = held[2] | {"positives": [{"text": "Another answer."}]}
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, held)))
    made = config(tmp_path, data=settings(tmp_path)["data"] | {"dev": str(tmp_path / "dev.jsonl")})
    for begin in (check, train):
        with pytest.raises(DataError) as caught:
            begin(made)
        first, hint = str(caught.value).splitlines()
        assert re.fullmatch(
            r".*train\.jsonl:5: the row is held out, too: .*dev\.jsonl:2 has the same query and"
            r" positive\.",
            first,
        )
        assert "`gmr data split`" in hint
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, [held[0], held[2]])))
    assert check(made) == 8


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"model": "gmr-none"}, "There is no model 'gmr-none'"),
        (
            {"data": {"train": "nowhere.jsonl", "max_tokens": 512}},
            "nowhere.jsonl: the file cannot be read",
        ),
        ({"batch": {"examples": 2, "tokens": 64}}, "batch.tokens is 64, less than the"),
        ({"head": {"tokens": 16}}, "'Yes' is 2 tokens"),
        ({"lora": {"target": "q_proj"}}, "lora.target matches none"),
        ({"tensorboard": True}, "the package tensorboard is not installed"),
    ],
)
def test_what_cannot_work_is_refused(
    tmp_path: Path, wrong: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises((TrainingError, DataError), match=sentence):
        train(config(tmp_path, **wrong), stream=StringIO())
    assert not (tmp_path / "run" / "states").exists()


def test_a_quantised_base_is_refused(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "base", Layout())
    put(
        folder,
        "config.json",
        stated("config.json") | {"quantization_config": {"quant_method": "fp8"}},
    )
    with pytest.raises(
        TrainingError,
        match=r"^base: its weights are quantised \(fp8, .*\), and cannot be trained: ",
    ):
        train(config(tmp_path, model=str(folder)), stream=StringIO())


def test_a_label_of_two_tokens_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = LiteralTokenizer.encode
    monkeypatch.setattr(
        LiteralTokenizer,
        "encode",
        lambda self, texts: [
            ids * (1 + (text == "no")) for text, ids in zip(texts, encode(self, texts), strict=True)
        ],
    )
    with pytest.raises(TrainingError, match="the label 'no' is 2 tokens, not one"):
        train(config(tmp_path), stream=StringIO())


def test_the_command_says_what_is_wrong_and_draws_on_demand(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("other")(lambda: None)
    register(app)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings(tmp_path, steps=1)))
    ask = CliRunner().invoke
    assert (
        ask(app, ["train", str(path), "--check"]).output,
        ask(app, ["train", str(path), "--plot"]).exit_code,
    ) == (
        "8 examples, and nothing is wrong with them.\n",
        1,
    )
    refused = ask(app, ["train", str(path), "--set", "lora.rnak=1"])
    assert refused.exit_code == 1
    assert "did you mean lora.rank?" in refused.output
    done = ask(app, ["train", str(path)])
    assert done.exit_code == 0
    assert done.output.splitlines()[-1] == str(tmp_path / "run")
    (tmp_path / "run" / "training.png").unlink()
    assert ask(app, ["train", str(path), "--plot"]).exit_code == 0
    assert (tmp_path / "run" / "training.png").exists()
