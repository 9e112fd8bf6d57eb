"""Logits of golden pairs by vLLM, in a process of an interpreter that has it.

Depends on processes and prompts, not on vLLM. Invariant: the process ends, and with it all
processes that it started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from model_store.checkpoint import Checkpoint
from model_store.folders.vllm_overrides import vllm_overrides
from model_store.golden import GOLDEN, GoldenPair
from model_store.training.publish import vllm_logits
from model_store.training.publish.pairs import PublishRefused, prompt_of

_TIMEOUT_SECONDS = 3600
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes as its largest rank."""
_LAST_CHARS = 2000


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
    described: list[dict[str, Any]] = []
    for pair, entry in zip(pairs, _entries(golden), strict=True):
        parts = (*entry["query"], *entry["document"])
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
        _run([str(python), str(vllm_logits.__file__), str(task_file), str(answer)], log)
        if not answer.exists():
            end = log.read_text(encoding="utf-8", errors="replace")[-_LAST_CHARS:].strip()
            raise PublishRefused(f"vLLM gave no logits. The end of its log:\n{end}")
        found = [float(logit) for logit in json.loads(answer.read_text(encoding="utf-8"))]

    if len(found) != len(pairs):
        raise PublishRefused(f"vLLM gave {len(found)} logits for {len(pairs)} pairs.")

    return found


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


def _run(command: list[str], log: Path) -> None:
    """Run a command to its end or the timeout; its own processes are of the same group, and end
    with it."""
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"HF_HUB_OFFLINE": "1"},
                start_new_session=True,
            )
        except OSError as error:
            raise PublishRefused(f"{command[0]} cannot be run ({error.strerror}).") from None
        try:
            process.wait(_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            raise PublishRefused(f"vLLM took more than {_TIMEOUT_SECONDS} s.") from None
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
