"""`make tiny` with a step or two of everything: from nothing to a promoted version, by the real
commands, and no stage twice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.tokens import TOKENIZER_FILE
from model_store.golden import read_golden
from model_store.manifest import manifest_digest
from model_store.synthetic.cells import CELLS
from tests.conftest import TINY

pytestmark = pytest.mark.slow

SIZES = "--see 1 --words 1 --signs 2 --rows 4 --dev 2 --queries 3 --gate-queries 3"
SETTINGS = ("steps=2", "batch.examples=2", "data.negatives=2", "evaluate_examples=2")


def make(work: Path, folder: Path) -> str:
    """What the command prints."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    command = [
        sys.executable,
        "-m",
        "model_store.recipes.tiny",
        str(work),
        str(folder),
        *SIZES.split(),
        *settings,
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert made.returncode == 0, made.stderr[-2000:]
    return made.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a tokenizer: learning one takes most of the time, and is deterministic."""
    work = tmp_path_factory.mktemp("work")
    shutil.copy(TINY / TOKENIZER_FILE, work)
    return work


@pytest.fixture(scope="module")
def printed(work: Path) -> str:
    shipped = work / "shipped"
    shipped.mkdir()
    (shipped / "stale").touch()
    return make(work, shipped)


@pytest.fixture(scope="module")
def made(work: Path, printed: str) -> Checkpoint:
    return resolve(str(work / "shipped"))


def test_every_command_is_shown_in_its_order(printed: str) -> None:
    shown = re.findall(r"gmr (train|publish|eval|models promote|models pull) ", printed)
    assert shown == ["train", "publish", "eval", "publish", "eval", "models promote", "models pull"]


def test_what_ships_is_the_promoted_version(work: Path, made: Checkpoint) -> None:
    promoted = resolve(
        "gmr-tiny@production", registry=str(work / "registry"), cache=work / "elsewhere"
    )
    assert contents(promoted.folder) == contents(made.folder)
    assert (made.name, made.manifest.base) == ("gmr-tiny", None)
    assert {pair.cell for pair in read_golden(made.folder)} == set(CELLS)


def test_the_lineage_leads_from_the_adapter_to_the_first_stage(
    work: Path, made: Checkpoint
) -> None:
    lineage, base = made.manifest.lineage, resolve(str(work / "base"))
    assert (lineage["base"]["name"], lineage["base"]["digest"]) == ("gmr-tiny-base", base.digest)
    assert lineage["base"]["lineage"]["signs"].startswith("2 steps of signs on all cells")
    assert lineage["adapter"]["rank"] == 16
    assert "The adapter: 4 generated rows" in lineage["data"][-1]
    assert set(lineage["metrics"]) == {f"nDCG@10 {cell}" for cell in CELLS}


def test_the_card_says_what_was_measured(work: Path, made: Checkpoint) -> None:
    card = (made.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    figures = json.loads((work / "figures.json").read_text(encoding="utf-8"))
    for cell in CELLS:
        assert f"| {cell} | {figures[f'nDCG@10 {cell}']:.3f} |" in card
    assert "7.8 M parameters" in card
    assert "base, see: 1 steps of naming pictures" in card
    assert "rank: 16" in card


def test_started_again_it_trains_nothing_and_leaves_the_same(
    work: Path, made: Checkpoint, tmp_path: Path
) -> None:
    before = contents(work / "run") | contents(work / "base")
    printed = make(work, tmp_path / "again")
    assert re.findall(r"gmr (publish|eval|models promote) ", printed) == []
    assert contents(tmp_path / "again") == contents(made.folder)
    assert contents(work / "run") | contents(work / "base") == before
    assert manifest_digest(tmp_path / "again") == manifest_digest(made.folder)
