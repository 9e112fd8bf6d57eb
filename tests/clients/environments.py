"""The environments that clients are installed in, and programs that run blocks of code there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
NODE = Path(__file__).parent / "node"
VENVS = ROOT / ".venv-clients"
SECONDS = 600
"""Time for all runs of an environment."""
QUIET = {
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NVIDIA_USAGE_TELEMETRY_ENABLED": "false",
    "NO_PROXY": "127.0.0.1",
}
"""Settings with which clients ask nothing of the internet."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a block of code, `times` in a row, with the `names` that it may use."""

    id: str
    code: str
    names: dict[str, Any]
    times: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """The values that a run printed, and its exception as a user sees it, None without one."""

    printed: list[Any]
    error: str | None


def run_blocks(environment: str, runs: Sequence[Run], folder: Path) -> dict[str, Outcome]:
    """Run blocks in an environment, all at the same time; the outcome of each by its id."""
    answer = folder / "outcomes.json"
    done = subprocess.run(
        [*_program(environment, folder), answer],
        input=json.dumps([asdict(run) for run in runs]),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=os.environ | QUIET,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(answer.read_text(encoding="utf-8"))
    return {name: Outcome(**outcome) for name, outcome in outcomes.items()}


def _program(environment: str, folder: Path) -> list[str | Path]:
    if environment == "node":
        # modules are looked up beside the file that imports them
        (folder / "node_modules").symlink_to(NODE / "node_modules")
        return ["node", PROGRAMS / "blocks.mjs"]
    if environment == "httpx":
        return [sys.executable, PROGRAMS / "blocks.py"]
    return [VENVS / environment / "bin" / "python", PROGRAMS / "blocks.py"]
