"""Golden pairs: pairs of every modality with their reference scores, kept beside the weights.

Depends on files, not on engines. Invariant: the images of golden pairs already have the size that
the model reads, so that a score does not depend on resizing.
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
"""Texts, and images as `[height, width, 3]` bytes, in order."""


@dataclass(frozen=True, slots=True)
class GoldenPair:
    """One pair, and its raw score as the published weights give it in fp32."""

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

    pairs = []
    for entry in json.loads(path.read_text(encoding="utf-8")):
        pair = GoldenPair(
            cell=entry["cell"],
            instruction=entry["instruction"],
            query=_side(entry["query"], folder),
            document=_side(entry["document"], folder),
            logit=float(entry["logit"]),
        )
        pairs.append(pair)
    return pairs


def unreadable(folder: Path) -> str:
    """The sentence for a checkpoint's pairs that `read_golden` raises an exception for."""
    return f"{folder.name}: {GOLDEN} or one of its pictures cannot be read."


UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)
"""Exceptions of `read_golden` for a file or a picture of another form."""


def write_golden(folder: Path, pairs: Sequence[GoldenPair]) -> list[str]:
    """Write the pairs and their images; returns the names of the files, for the manifest."""
    images: dict[str, Pixels] = {}
    entries = []
    for pair in pairs:
        entry = {
            "cell": pair.cell,
            "instruction": pair.instruction,
            "query": _parts(pair.query, images),
            "document": _parts(pair.document, images),
            "logit": pair.logit,
        }
        entries.append(entry)

    for name, pixels in images.items():
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / name, optimize=True)

    (folder / GOLDEN).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return [GOLDEN, *images]


def _parts(side: Side, images: dict[str, Pixels]) -> list[dict[str, str]]:
    """A side as JSON. Its images are added to `images`, by the names of their files."""
    parts = []
    for part in side:
        if isinstance(part, str):
            parts.append({"text": part})
            continue

        content = repr(part.shape).encode() + part.tobytes()
        name = f"golden/{hashlib.sha256(content).hexdigest()[:12]}.png"
        images[name] = part
        parts.append({"image": name})
    return parts


def _side(parts: list[dict[str, str]], folder: Path) -> Side:
    """A side from JSON, with its images read from `folder`."""
    side: list[str | Pixels] = []
    for part in parts:
        if "text" in part:
            side.append(part["text"])
        else:
            image = Image.open(folder / part["image"])
            side.append(np.asarray(image.convert("RGB")))
    return tuple(side)
