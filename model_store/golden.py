"""Golden pairs: a few pairs of every modality with the logits they must have, kept beside the
weights.

Knows files, not engines. Invariant: golden pictures are already of the size the model reads, so
that no resizing stands between the file and the score.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

GOLDEN = "golden.json"

Pixels = npt.NDArray[np.uint8]
Side = tuple[str | Pixels, ...]
"""Texts, and pictures as `[height, width, 3]` bytes, in order."""


@dataclass(frozen=True, slots=True)
class GoldenPair:
    """One pair, and its logit(yes) - logit(no) as the published weights give it in fp32."""

    cell: str
    instruction: str
    query: Side
    document: Side
    logit: float


def read_golden(folder: Path) -> list[GoldenPair]:
    """The pairs of a checkpoint; none if it has no golden file."""
    path = folder / GOLDEN
    if not path.exists():
        return []
    return [
        GoldenPair(
            cell=entry["cell"],
            instruction=entry["instruction"],
            query=_side(entry["query"], folder),
            document=_side(entry["document"], folder),
            logit=float(entry["logit"]),
        )
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]


def write_golden(folder: Path, pairs: Sequence[GoldenPair]) -> list[str]:
    """Write the pairs and their pictures; gives the names of the files, for the manifest."""
    pictures: dict[str, Pixels] = {}
    entries = [
        {
            "cell": pair.cell,
            "instruction": pair.instruction,
            "query": _parts(pair.query, pictures),
            "document": _parts(pair.document, pictures),
            "logit": pair.logit,
        }
        for pair in pairs
    ]
    for name, pixels in pictures.items():
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / name, optimize=True)
    (folder / GOLDEN).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return [GOLDEN, *pictures]


def _parts(side: Side, pictures: dict[str, Pixels]) -> list[dict[str, str]]:
    parts = []
    for part in side:
        if isinstance(part, str):
            parts.append({"text": part})
        else:
            content = repr(part.shape).encode() + part.tobytes()
            name = f"golden/{hashlib.sha256(content).hexdigest()[:12]}.png"
            pictures[name] = part
            parts.append({"image": name})
    return parts


def _side(parts: list[dict[str, str]], folder: Path) -> Side:
    return tuple(
        part["text"]
        if "text" in part
        else np.asarray(Image.open(folder / part["image"]).convert("RGB"))
        for part in parts
    )
