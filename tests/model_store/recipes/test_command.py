"""A recipe's commands: what they return, and what they do not take from the environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from model_store.recipes.command import run_gmr


def test_a_command_takes_no_setting_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "gmr"
    program.write_text('#!/bin/sh\necho "$RERANK_MODEL|$OTHER|$*"\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("RERANK_MODEL", "of-the-environment")
    monkeypatch.setenv("OTHER", "kept")
    said: list[str] = []
    assert run_gmr(said.append, "eval", Path("folder"), 3) == "|kept|eval folder 3\n"
    assert said == ["gmr eval folder 3"]


def test_a_command_that_fails_ends_the_recipe() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run_gmr(lambda line: None, "no-such-command")
