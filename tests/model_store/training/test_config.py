"""A configuration is the paper's where it ships, and refused with a sentence where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
import yaml

from model_store.commands.train import register
from model_store.training.config import SHIPPED_CONFIGS, TrainConfig, TrainingError, load_config
from model_store.training.config_files import MAX_CONFIG_BYTES
from model_store.training.methods import load_run

LEAST = {"model": "gmr-tiny", "output": "run", "data": {"train": "train.jsonl"}}


def written(folder: Path, values: object) -> str:
    path = folder / "config.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values), encoding="utf-8")
    return str(path)


def refused(folder: Path, values: object, *overrides: str) -> str:
    with pytest.raises(TrainingError) as caught:
        load_config(written(folder, values), overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", ["gmr-3b", "gmr-7b"])
def test_shipped_configurations_are_the_papers(name: str) -> None:
    config = load_config(name)
    assert config.model == f"Qwen/Qwen2.5-VL-{name[4:].upper()}-Instruct"
    assert (config.lora.rank, config.optimizer.learning_rate, config.precision) == (
        16,
        1e-4,
        "bf16",
    )
    assert (config.data.negatives, config.data.random_share, config.data.max_tokens) == (
        16,
        0.5,
        3200,
    )
    assert (config.head.kind, config.head.tokens, config.loss.weight, config.loss.direction) == (
        "tokens",
        2,
        "sft",
        "sft",
    )
    assert config.batch.tokens >= 17 * 3200  # a whole group at full length is one batch


def test_the_ablations_have_four_negatives_and_nothing_else_of_their_own() -> None:
    ours, papers = (
        load_config("ablation").decisive_settings(),
        load_config("gmr-3b").decisive_settings(),
    )
    assert {key for key in ours if ours[key] != papers[key]} == {"data.negatives", "data.train"}
    assert ours["data.negatives"] == 4


def test_every_shipped_configuration_loads() -> None:
    assert {load_run(path.stem).model for path in SHIPPED_CONFIGS.glob("*.yaml")} >= {"gmr-tiny"}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"lora": {"rnak": 8}}, "there is no setting lora.rnak; did you mean lora.rank?"),
        ({"optimiser": {}}, "there is no setting optimiser; did you mean optimizer?"),
        ({"zzz": 1}, "there is no setting zzz."),
        ({"lora": {"rank": 0}}, "lora.rank: "),
        ({"optimizer": {"learning_rate": float("nan")}}, "optimizer.learning_rate: "),
        ({"seed": 2**32}, "seed: "),
        ({"revision": "main"}, "revision: "),
        ({"loss": {"weight": "base_masked"}}, "tau goes with the weight base_masked"),
        ({"loss": {"tau": 0.001}}, "tau goes with the weight base_masked"),
        ({"head": {"kind": "random", "tokens": 4}}, "a random head has two rows"),
        ({"head": {"words": ["yes", "no", "no"]}}, "words must name each word once"),
        ({"head": {"words": ["yes"]}}, "head.words needs two words at least"),
        ({"head": {"tokens": 4}, "loss": {"direction": "cl"}}, "a head of more than two words"),
        ({"model": None}, "model: "),
        ({"early_stop": {"patience": 3}}, "early_stop needs data.dev, whose nDCG@10 ends the run"),
        ({"early_stop": {"patience": 0}}, "early_stop.patience: "),
        ({"early_stop": {"patienec": 3}}, "did you mean early_stop.patience?"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, wrong: dict[str, object], named: str) -> None:
    sentence = refused(tmp_path, LEAST | wrong)
    assert named in sentence
    assert sentence.startswith(str(tmp_path / "config.yaml"))


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    assert (
        len(refused(tmp_path, LEAST | {"epochs": 0, "keep": 0, "colour": "red"}).splitlines()) == 3
    )


def test_a_file_that_is_none(tmp_path: Path) -> None:
    assert "config.yaml:2: this is not YAML" in refused(tmp_path, "model: x\n  : [\n")
    assert "is a mapping" in refused(tmp_path, "- a\n- b\n")
    assert "at most" in refused(tmp_path, "#" * (MAX_CONFIG_BYTES + 1))
    assert "not YAML" in refused(tmp_path, "!!python/object/apply:os.system ['true']")
    with pytest.raises(
        TrainingError,
        match=r"shipped configurations are ablation, erank-4b-grpo, .*, gmr-tiny, tiny",
    ):
        load_config("gmr-4b")


def test_overrides_are_read_as_yaml(tmp_path: Path) -> None:
    config = load_config(
        written(tmp_path, LEAST),
        ["lora.rank=8", "loss.weight=cl", "optimizer.learning_rate=1e-5", "steps=3"],
    )
    assert (config.lora.rank, config.loss.weight, config.optimizer.learning_rate, config.steps) == (
        8,
        "cl",
        1e-5,
        3,
    )
    assert "did you mean lora.rank" in refused(tmp_path, LEAST, "lora.ranks=8")
    assert "not key=value" in refused(tmp_path, LEAST, "lora.rank")
    assert "not key=value" in refused(tmp_path, LEAST, "model.name=x")


def test_what_decides_the_weights() -> None:
    config = TrainConfig.model_validate(LEAST)
    free = TrainConfig.model_validate(
        LEAST | {"output": "elsewhere", "keep": 9, "device": "cpu", "save_every": 7}
    )
    other = TrainConfig.model_validate(LEAST | {"seed": 1})
    assert config.decisive_settings() == free.decisive_settings()
    assert {
        key
        for key, value in other.decisive_settings().items()
        if config.decisive_settings()[key] != value
    } == {"seed"}


def test_evaluations_decide_the_weights_of_a_run_with_an_early_stop_alone() -> None:
    data = {"train": "train.jsonl", "dev": "dev.jsonl"}
    plain, other = (
        TrainConfig.model_validate(LEAST | {"data": data, "evaluate_every": every})
        for every in (3, 4)
    )
    assert plain.decisive_settings() == other.decisive_settings()
    assert plain.decisive_settings()["early_stop"] is None  # as in a state that lacks it

    stopped = TrainConfig.model_validate(LEAST | {"data": data, "early_stop": {}})
    decisive = stopped.decisive_settings()
    assert (decisive["early_stop.patience"], decisive["evaluate_every"]) == (5, 500)


def test_a_run_without_shared_prefixes_states_what_older_runs_state() -> None:
    off, on = (
        TrainConfig.model_validate(LEAST | {"batch": {"shared_prefix": shared}}).decisive_settings()
        for shared in (False, True)
    )
    assert "batch.shared_prefix" not in off
    assert on == off | {"batch.shared_prefix": True}


def test_a_section_that_a_file_leaves_empty_may_be_set(tmp_path: Path) -> None:
    values = LEAST | {"data": {"train": "t", "dev": "d"}, "early_stop": None}
    config = load_config(written(tmp_path, values), ["early_stop.patience=3"])
    assert config.early_stop is not None
    assert config.early_stop.patience == 3
    assert "the value is not YAML" in refused(tmp_path, LEAST, f"steps={'[' * 10_000}")
    assert "is not key=value" in refused(tmp_path, LEAST, "model.name=x")


def test_the_command_names_all_configurations_that_ship() -> None:
    app = typer.Typer()
    register(app)
    (named,) = (each for each in typer.main.get_command(app).params if each.name == "config")
    words = set(str(getattr(named, "help", "")).replace(",", "").rstrip(".").split())
    assert {path.stem for path in SHIPPED_CONFIGS.glob("*.yaml")} <= words
