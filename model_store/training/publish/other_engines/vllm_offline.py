"""Logits of golden pairs by vLLM's offline engine, in a process of an interpreter that has it.

Depends on processes and prompts, not on vLLM. Invariant: vLLM reads the token ids of the family.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_store.checkpoint import Checkpoint
from model_store.folders.vllm_overrides import vllm_overrides
from model_store.golden import GOLDEN, GoldenPair
from model_store.training.publish.other_engines import vllm_offline_program
from model_store.training.publish.other_engines.processes import end_of, started
from model_store.training.publish.pairs import PublishRefused, prompt_of

_TIMEOUT_SECONDS = 3600
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes as its largest rank."""


def vllm_logits_of(
    python: Path,
    checkpoint: Checkpoint,
    pairs: Sequence[GoldenPair],
    golden: Path,
    *,
    adapter: Path | None = None,
    rank: int = 0,
) -> list[float]:
    """The raw score of each pair in fp32; the pairs are those of `golden`, a folder with their
    pictures.

    Raises `PublishRefused` with the end of vLLM's log where it gives no scores.
    """
    sides = ["query", "document"]  # vLLM takes pictures in the order of the prompt
    if checkpoint.family.cacheable_side == "document":
        sides.reverse()

    described: list[dict[str, Any]] = []
    for pair, entry in zip(pairs, _entries(golden), strict=True):
        parts = [part for side in sides for part in entry[side]]
        images = [str((golden / part["image"]).resolve()) for part in parts if "image" in part]
        described.append({"ids": _unexpanded(checkpoint, pair), "images": images})

    task = {
        "folder": str(checkpoint.folder.resolve()),
        "overrides": vllm_overrides(checkpoint.name, checkpoint.folder, checkpoint.readout),
        "max_tokens": checkpoint.manifest.max_tokens,
        "reads_images": checkpoint.family.images is not None,
        "adapter": str(adapter.resolve()) if adapter else None,
        "rank": next((known for known in _RANKS if known >= rank), rank),
        "pairs": described,
    }
    with tempfile.TemporaryDirectory() as scratch:
        task_file = Path(scratch) / "task.json"
        answer = Path(scratch) / "answer.json"
        log = Path(scratch) / "log"
        task_file.write_text(json.dumps(task), encoding="utf-8")
        program = str(vllm_offline_program.__file__)
        with started([str(python), program, str(task_file), str(answer)], log) as process:
            _await_end(process)
        if not answer.exists():
            raise PublishRefused(f"vLLM gave no logits. The end of its log:\n{end_of(log)}")
        found = [float(logit) for logit in json.loads(answer.read_text(encoding="utf-8"))]

    if len(found) != len(pairs):
        raise PublishRefused(f"vLLM gave {len(found)} logits for {len(pairs)} pairs.")

    return found


def _await_end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise PublishRefused(f"vLLM took more than {_TIMEOUT_SECONDS} s.") from None


def _unexpanded(checkpoint: Checkpoint, pair: GoldenPair) -> list[int]:
    """A prompt's ids with one placeholder an image: vLLM's processor repeats them itself."""
    placeholder = checkpoint.family.image_token_id
    ids: list[int] = []
    for token in prompt_of(checkpoint.family, pair).ids:
        repeated = token == placeholder and ids and ids[-1] == token
        if not repeated:
            ids.append(token)
    return ids


def _entries(folder: Path) -> list[dict[str, list[dict[str, str]]]]:
    entries: list[dict[str, list[dict[str, str]]]] = json.loads(
        (folder / GOLDEN).read_text(encoding="utf-8")
    )
    return entries
