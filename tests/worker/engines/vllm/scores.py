"""Raw scores of texts by several small checkpoints in one start of vLLM."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.worker.engines.vllm.engine_worker import environment, python

PROGRAM = "tests.worker.engines.vllm.scoring_program"
Texts = Sequence[str]
"""An instruction, a query and a document."""


def scores_of_vllm(root: Path, task: Mapping[str, Sequence[Texts]]) -> Mapping[str, list[float]]:
    """The raw scores of each folder's texts; `root` is a folder for the program's files."""
    (root / "task").write_text(json.dumps(task), encoding="utf-8")
    ended = subprocess.run(
        [python(), "-m", PROGRAM, str(root / "task"), str(root / "answer")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    answer: dict[str, list[float]] = json.loads((root / "answer").read_text(encoding="utf-8"))
    return answer
