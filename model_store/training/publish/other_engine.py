"""Asks vLLM for golden pairs' logits, in a process of an interpreter that has it.

Knows processes and prompts, not vLLM. Invariant: whatever that process does, it ends, and with it
all that it started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from model_store.checkpoint import Checkpoint
from model_store.folders.vllm_overrides import vllm_overrides
from model_store.golden import GOLDEN, GoldenPair
from model_store.training.publish import vllm_logits
from model_store.training.publish.pairs import PublishRefused, prompt_of

_PATIENCE_SECONDS = 3600
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_LAST_LINES = 2000


def vllm_logits_of(
    python: Path,
    checkpoint: Checkpoint,
    pairs: Sequence[GoldenPair],
    golden: Path,
    *,
    adapter: Path | None = None,
    rank: int = 0,
) -> list[float]:
    """logit(yes) - logit(no) of each pair in fp32; the pairs are those of `golden`, a folder with
    their pictures.

    Raises `PublishRefused` with the end of vLLM's log where there are no such logits.
    """
    pictures = [
        [part["image"] for part in (*entry["query"], *entry["document"]) if "image" in part]
        for entry in _entries(golden)
    ]
    pad = checkpoint.family.image_token_id
    task = {
        "folder": str(checkpoint.folder.resolve()),
        "overrides": vllm_overrides(checkpoint.name, checkpoint.folder, checkpoint.readout),
        "max_tokens": checkpoint.manifest.max_tokens,
        "adapter": str(adapter.resolve()) if adapter else None,
        "rank": next((each for each in _RANKS if each >= rank), rank),
        "pairs": [
            {
                "ids": _unexpanded(checkpoint, pair, pad),
                "images": [str((golden / name).resolve()) for name in names],
            }
            for pair, names in zip(pairs, pictures, strict=True)
        ],
    }
    with tempfile.TemporaryDirectory() as scratch:
        asked, answer, log = (Path(scratch) / name for name in ("task.json", "answer.json", "log"))
        asked.write_text(json.dumps(task), encoding="utf-8")
        _run([str(python), str(vllm_logits.__file__), str(asked), str(answer)], log)
        if not answer.exists():
            told = log.read_text(encoding="utf-8", errors="replace")[-_LAST_LINES:].strip()
            raise PublishRefused(f"vLLM gave no logits. The end of its log:\n{told}")
        found = [float(logit) for logit in json.loads(answer.read_text(encoding="utf-8"))]
    if len(found) != len(pairs):
        raise PublishRefused(f"vLLM gave {len(found)} logits for {len(pairs)} pairs.")
    return found


def _unexpanded(checkpoint: Checkpoint, pair: GoldenPair, pad: int | None) -> list[int]:
    """A prompt's ids with one placeholder an image: vLLM's processor repeats them itself."""
    ids = prompt_of(checkpoint.family, pair).ids
    return [each for token, run in groupby(ids) for each in ([token] if token == pad else run)]


def _entries(folder: Path) -> list[dict[str, list[dict[str, str]]]]:
    entries: list[dict[str, list[dict[str, str]]]] = json.loads(
        (folder / GOLDEN).read_text(encoding="utf-8")
    )
    return entries


def _run(command: list[str], log: Path) -> None:
    """Run to the end, or to the end of patience; vLLM's own processes are of the same group and end
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
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise PublishRefused(f"vLLM took more than {_PATIENCE_SECONDS} s.") from None
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
