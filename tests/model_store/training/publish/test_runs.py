"""A run of `gmr train` is published with what it knows of itself, if an adapter can carry what it
learnt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from model_store.checkpoint import Checkpoint
from model_store.manifest import digest_files
from model_store.training.publish.card import Story
from model_store.training.publish.pairs import PublishRefused
from model_store.training.publish.runs import TrainedAdapter, open_run


@pytest.fixture
def told(base: Checkpoint) -> dict[str, object]:
    return {
        "run": {},
        "config": {"lora": {"rank": 4}, "train": ["/home/somebody/data/rows.jsonl", "more.jsonl"]},
        "base": {"name": "base", "digest": base.digest},
        "head": {"kind": "tokens", "words": ["yes", "no"]},
        "last": {"loss": 0.5, "lr": 0},
        "files": {},
    }


def write(folder: Path, told: object) -> Path:
    (folder / "adapter").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


def test_a_run_brings_its_adapter_settings_and_figures(
    base: Checkpoint, told: dict[str, object], tmp_path: Path
) -> None:
    trained = open_run(write(tmp_path / "run", told), base, Story(licence="MIT"))
    assert (trained.folder, trained.read_out) == (tmp_path / "run" / "adapter", "yes - no")
    story = trained.story
    assert story.config
    assert yaml.safe_load(story.config) == {
        "lora": {"rank": 4},
        "train": ["rows.jsonl", "more.jsonl"],
    }
    assert (story.licence, story.metrics) == ("MIT", {"loss": 0.5, "lr": 0})


def test_what_was_given_goes_before_what_the_run_knows(
    base: Checkpoint, told: dict[str, object], tmp_path: Path
) -> None:
    given = Story(config="mine", metrics={"mine": 1.0})
    assert open_run(write(tmp_path / "run", told), base, given).story == given


def test_another_folder_is_taken_for_an_adapter(base: Checkpoint, tmp_path: Path) -> None:
    assert open_run(tmp_path, base, Story()) == TrainedAdapter(tmp_path, Story())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"head": {"kind": "random"}}, r"head of its own \(random\)"),
        ({"head": {"kind": "trainable"}}, "head of its own"),
        ({"base": {"name": "other", "digest": "0" * 64}}, "was trained on other"),
        ({"head": None}, "not that of a run"),
        ({"last": []}, "not that of a run"),
    ],
)
def test_what_cannot_be_published_is_refused(
    base: Checkpoint, told: dict[str, object], tmp_path: Path, change: dict[str, object], said: str
) -> None:
    with pytest.raises(PublishRefused, match=said):
        open_run(write(tmp_path / "run", told | change), base, Story())


def test_its_adapter_is_the_run(base: Checkpoint, told: dict[str, object], tmp_path: Path) -> None:
    run = write(tmp_path / "run", told)
    assert open_run(run / "adapter", base, Story()) == open_run(run, base, Story())
    write(tmp_path / "learnt", told | {"config": {"loss": {"direction": "cl"}}})
    assert open_run(tmp_path / "learnt" / "adapter", base, Story()).read_out == "yes"
    (run / "manifest.json").write_text("{}", encoding="utf-8")
    assert open_run(run / "adapter", base, Story()) == TrainedAdapter(run / "adapter", Story())


def test_an_adapter_that_the_run_did_not_leave_is_refused(
    base: Checkpoint, told: dict[str, object], tmp_path: Path
) -> None:
    run = write(tmp_path / "run", told)
    weights = run / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(b"left")
    name = "adapter/adapter_model.safetensors"
    digests = {name: digest_files(run, [name])[name].model_dump()}
    (run / "manifest.json").write_text(json.dumps(told | {"files": digests}), encoding="utf-8")
    assert open_run(run, base, Story()).folder == run / "adapter"
    weights.write_bytes(b"lost")
    with pytest.raises(PublishRefused, match=rf"run: {name} is not the file that the run left"):
        open_run(run, base, Story())
    weights.unlink()
    with pytest.raises(PublishRefused, match=rf"run lacks {name}"):
        open_run(run, base, Story())


def test_a_run_that_is_not_finished_is_refused(
    base: Checkpoint, told: dict[str, object], tmp_path: Path
) -> None:
    (write(tmp_path / "run", told) / "manifest.json").unlink()
    with pytest.raises(PublishRefused, match="the run is not finished"):
        open_run(tmp_path / "run", base, Story())
    (tmp_path / "run" / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(PublishRefused, match="not that of a run"):
        open_run(tmp_path / "run", base, Story())
