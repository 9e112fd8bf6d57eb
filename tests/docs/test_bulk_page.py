"""docs/bulk.md: its rows and commands, run as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import CALM
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "bulk.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(gmr bulk [^#\n]*?)(?: +#.*)?$", PAGE, re.MULTILINE)
LOCAL = [line for line in COMMANDS if "https://" not in line]
SHARDED = [line for line in LOCAL if "--shard" in line]


def run(line: str, folder: Path, server: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "service.cli", *shlex.split(line)[1:]],
        check=False,
        cwd=folder,
        env=os.environ | CALM | {"RERANK_URL": server, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the page's rows and pictures."""
    block = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert block
    (tmp_path / "rows.jsonl").write_text(block[1], encoding="utf-8")
    (tmp_path / "pictures").mkdir()
    for name in re.findall(r"pictures/\w+\.png", block[1]):
        Image.new("RGB", (64, 64), "red").save(tmp_path / name)
    return tmp_path


def scores_are_complete(folder: Path) -> bool:
    lines = (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["key"], len(row["scores"]), row["error"]) for row in rows] == [
        ("q1", 2, None),
        ("q2", 2, None),
        ("q3", 0, None),
    ]


def test_the_first_command(folder: Path, server: str) -> None:
    assert "3 rows are in scores.jsonl." in run(LOCAL[0], folder, server)
    assert scores_are_complete(folder)


def test_the_commands_of_shards(folder: Path, server: str) -> None:
    for line in [*SHARDED, LOCAL[0]]:
        run(line, folder, server)
    assert len(SHARDED) == 2
    assert scores_are_complete(folder)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--model", "--ray"])
def test_the_commands_with_a_model_of_their_own(option: str, folder: Path, server: str) -> None:
    line = next(line for line in LOCAL if option in line)
    run(line, folder, server)
    assert scores_are_complete(folder)
