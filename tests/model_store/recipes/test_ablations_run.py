"""Whole plans on a base so small that a run takes seconds: rows, runs, what is left, and what is
cut off."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file
from transformers import Qwen2_5_VLConfig
from transformers import Qwen2_5_VLForConditionalGeneration as Network
from typer.testing import CliRunner

from model_store.checkpoint import Checkpoint, resolve
from model_store.commands.ablate import register
from model_store.recipes.ablations.comparisons import COMPARISONS, SFT
from model_store.recipes.ablations.data import POOL, write_rows
from model_store.recipes.ablations.forget import forgetful
from model_store.recipes.ablations.plan import AblationPlan
from model_store.recipes.ablations.results import Outcome, Summary, read
from model_store.recipes.ablations.run import LOCK, RESULTS, RUNS, run
from model_store.recipes.ablations.variants import Row, Variant
from model_store.synthetic import cells
from model_store.training.config import TrainingError
from model_store.training.data.rows import read_examples
from model_store.training.data.validation import check
from model_store.training.publish.folder import copy_reading, described_as, seal
from model_store.training.signals import Stopped
from tests.conftest import TINY
from tests.model_store.training.rows import written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """gmr-tiny's tokenizer on layers of a few thousand weights."""
    shipped, folder = resolve("gmr-tiny"), tmp_path_factory.mktemp("base")
    config = Qwen2_5_VLConfig.from_pretrained(TINY)
    text = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        "layer_types": ["full_attention"] * 3,
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 32,
    }
    for name, value in text.items():
        setattr(config.text_config, name, value)
    for name, value in (vision | {"fullatt_block_indexes": [0]}).items():
        setattr(config.vision_config, name, value)
    torch.manual_seed(3)
    Network(config).save_pretrained(folder)
    copy_reading(shipped, folder)
    seal(
        folder,
        name="smallest",
        described=described_as(shipped.manifest),
        card="For tests.",
        lineage={},
    )
    return resolve(str(folder))


def plan(
    base: Checkpoint, output: Path, *variants: Variant, steps: int = 2, seeds: int = 1
) -> AblationPlan:
    group = replace(
        COMPARISONS["w-d"],
        rows=tuple(Row(variant.name, variant) for variant in variants),
        differences=(),
    )
    return AblationPlan(
        base,
        output,
        (group,),
        seeds,
        steps,
        examples=1,
        rate=2e-3,
        queries=3,
        precision="fp32",
        device="cpu",
    )


def values(folder: Path) -> dict[str, object]:
    """Of every result all but the digest of its run, which names the folder it lay in."""
    found = {
        path.name: json.loads(path.read_text()) for path in sorted((folder / RESULTS).iterdir())
    }
    for outcome in found.values():
        outcome["results"].pop("checkpoint")
    return found


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    made = typer.Typer()
    register(made)
    made.command("other")(lambda: None)  # one command alone would be taken for the program itself
    return made


def test_rows_are_the_training_jobs_own_and_the_same_each_time(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a", 10, 0)
    report = check(path, decode=True)
    assert (report.rows, report.wrong, report.hard, report.random) == (
        10,
        0,
        10 * POOL // 2,
        10 * POOL // 2,
    )
    rows = list(read_examples(path))
    assert [row.id.split("/")[0] for row in rows] == [*cells.CELLS, cells.CELLS[0]]
    # the cells' own, and the default
    assert len({row.instruction for row in rows}) > len(cells.CELLS)
    assert [bool(rows[number].query.image) for number in (0, 1, 2)] == [False, True, False]
    write_rows(tmp_path / "b", 10, 0)
    first, second = (written(tmp_path / name) for name in "ab")
    assert first == second
    assert write_rows(tmp_path / "a", 10, 0) == path
    other = write_rows(tmp_path / "a", 10, 1)
    assert other != path
    assert other.read_bytes() != path.read_bytes()


def test_the_command_runs_what_is_missing_and_writes_the_page(
    tmp_path: Path, base: Checkpoint, app: typer.Typer
) -> None:
    output, docs = tmp_path / "out", tmp_path / "docs"
    options = [
        "--base",
        str(base.folder),
        "--steps",
        "2",
        "--examples",
        "1",
        "--queries",
        "3",
        "--output",
        str(output),
    ]
    given = ["ablate", *options, "--only", "curves", "--device", "cpu", "--report", str(docs)]
    ran = CliRunner().invoke(app, [*given, "--seeds", "1"])
    assert ran.exit_code == 0, ran.output
    assert "2 runs, 0 of them done." in ran.stderr
    assert "2/2 cl-cl, seed 0: nDCG@10 0." in ran.stderr
    assert set(written(output / RESULTS)) == {"sft-sft-0.json", "cl-cl-0.json"}
    assert written(output / RUNS) == {}
    before = written(output / RESULTS)
    again = CliRunner().invoke(app, [*given, "--seeds", "2"])
    assert again.exit_code == 0, again.output
    assert "4 runs, 2 of them done." in again.stderr
    assert before.items() <= written(output / RESULTS).items()
    page = (docs / "ablations.md").read_text()
    assert again.stdout.strip() == str(docs / "ablations.md")
    assert "## W+ and W- in training (figures 2 and 3)" in page
    summary = read(docs / "ablations.json", Summary)
    assert [len(summary.of(variant.name)) for variant in COMPARISONS["curves"].variants] == [2, 2]
    outcome = read(output / RESULTS / "cl-cl-1.json", Outcome)
    assert set(outcome.results.datasets) == set(cells.CELLS)
    assert all(len(each) == 3 for each in outcome.results.datasets.values())
    other = CliRunner().invoke(app, [*given, "--seeds", "1", "--rate", "0.001"])
    assert other.exit_code == 1
    assert "begun with another rate (0.002, now 0.001); choose another output" in other.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--only", "w-e"], "no comparison 'w-e'; did you mean w-d?"),
        (["--base", "nowhere"], "There is no model 'nowhere'"),
        (["--seeds", "31"], "'--seeds'"),
        (["--steps", "0"], "'--steps'"),
        (["--queries", "201"], "'--queries'"),
        (["--rate", "nan"], "'--rate'"),
        (["--precision", "fp8"], "'--precision'"),
    ],
)
def test_what_is_asked_wrongly_is_refused_before_anything_is_written(
    tmp_path: Path, app: typer.Typer, options: list[str], said: str
) -> None:
    given = {"--base": "gmr-tiny", "--output": str(tmp_path / "out")} | dict([options])  # type: ignore[list-item]
    ran = CliRunner().invoke(app, ["ablate", *(part for pair in given.items() for part in pair)])
    assert ran.exit_code == (1 if "--base" in options else 2), ran.output
    assert said in ran.stderr
    assert not (tmp_path / "out").exists()


class Interrupting(StringIO):
    """Sends this process a signal when the training job is heard to say something for the `nth`
    time."""

    def __init__(self, said: str, nth: int) -> None:
        super().__init__()
        self._said, self._left = said, nth

    def write(self, text: str) -> int:
        if self._said in text:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGTERM)
        return super().write(text)


def test_a_plan_that_is_stopped_goes_on_and_comes_to_the_same(
    tmp_path: Path, base: Checkpoint
) -> None:
    variants = (SFT, Variant(words=8), Variant("cl", "cl", weight_dtype="float16", head="random"))
    whole = run(
        plan(base, tmp_path / "whole", *variants, steps=4), lambda line: None, stream=StringIO()
    )
    stopped: list[str] = []
    asked = plan(base, tmp_path / "stopped", *variants, steps=4)
    with pytest.raises(Stopped):
        run(asked, stopped.append, stream=Interrupting("step 2/4", 2))
    assert stopped[1].startswith("1/3 sft-sft, seed 0")
    assert set(written(tmp_path / "stopped" / RESULTS)) == {"sft-sft-0.json"}
    heard: list[str] = []
    said = StringIO()
    assert run(asked, heard.append, stream=said) == whole
    assert heard[0] == "3 runs, 1 of them done."
    assert "3 of them done" in said.getvalue()  # the run that was stopped did not begin anew
    assert values(tmp_path / "stopped") == values(tmp_path / "whole")
    shutil.rmtree(tmp_path / "stopped" / RESULTS)
    (tmp_path / "whole" / RESULTS / "sft-sft-0.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"sft-sft-0.json: this is no outcome of ablations"):
        run(plan(base, tmp_path / "whole", *variants, steps=4), heard.append, stream=StringIO())


def test_two_at_once_in_one_folder_are_refused(tmp_path: Path, base: Checkpoint) -> None:
    with (tmp_path / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="another gmr ablate is at work in it"):
            run(plan(base, tmp_path, SFT), lambda line: None)
    assert set(written(tmp_path)) == {LOCK}


def test_a_forgetful_base_differs_in_its_last_layers_alone(
    tmp_path: Path, base: Checkpoint
) -> None:
    made = forgetful(base, 1, tmp_path / "base-1")
    before, after = (load_file(each.folder / "model.safetensors") for each in (base, made))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name].bfloat16(), after[name])}
    assert changed
    assert all(".layers.2." in name for name in changed)
    assert made.manifest.name == "smallest-forgot-1"
    assert made.manifest.pixels == base.manifest.pixels
    stamp = (made.folder / "model.safetensors").stat().st_mtime_ns
    assert forgetful(base, 1, tmp_path / "base-1").digest == made.digest
    assert (made.folder / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(TrainingError, match="has 3 language layers; from 1 to 2 can be made anew"):
        forgetful(base, 3, tmp_path / "base-3")
    assert not (tmp_path / "base-3").exists()


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A signal that comes late must end a test, not the tests."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)
