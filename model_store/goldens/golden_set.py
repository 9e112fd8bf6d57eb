"""A golden set from its file: pairs, their published raw scores, and their sources.

Depends on JSON files alone, neither on weights nor on a service. Invariant: every number has a
tolerance and a source, and a picture that is not here is named.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FOLDER = Path(__file__).parent
GOLDEN = "golden.json"
"""A checkpoint's own golden pairs; `model_store.golden` writes them, and needs numpy."""
MAX_FILE_BYTES = 2**24
MAX_PAIRS = 10_000
_FP32 = 1e-3
"""Tolerance of a checkpoint's own golden pairs, which are fp32."""


class GoldenSetUnusable(Exception):
    """A golden set that cannot be read; the text is one sentence."""


class GoldenPart(BaseModel):
    """A part of a query or a document: a text, or a picture by the name of its file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None = None
    picture: str | None = None

    @model_validator(mode="after")
    def _is_one(self) -> GoldenPart:
        if (self.text is None) == (self.picture is None):
            raise ValueError("a part is a text or a picture")

        path = PurePosixPath(self.picture or "")
        if path.is_absolute() or ".." in path.parts:
            raise ValueError("the path of a picture leads out of its folder")
        return self


class PublishedPair(BaseModel):
    """A pair and its published raw score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: tuple[GoldenPart, ...] = Field(min_length=1)
    document: tuple[GoldenPart, ...] = Field(min_length=1)
    instruction: str | None = None
    """None: the model's own default."""
    logit: float
    tolerance: float = Field(gt=0, le=100)
    """The uncertainty of the number: its digits, its dtype, and how far two sources differ."""
    source: str

    def pictures(self) -> list[str]:
        """The pictures of both sides, by name."""
        parts = (*self.query, *self.document)
        return [part.picture for part in parts if part.picture is not None]


class GoldenSet(BaseModel):
    """Published scores of one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """The model as a hub has it."""
    pictures: dict[str, str] = Field(default_factory=dict)
    """Addresses of pictures that are not here, by the names of their files."""
    pairs: tuple[PublishedPair, ...] = Field(min_length=1, max_length=MAX_PAIRS)


def golden_sets() -> list[str]:
    """The names of the golden sets that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read_golden_set(name: str) -> tuple[GoldenSet, Path | None]:
    """A golden set that ships, or the golden pairs of a checkpoint's folder, and the folder of its
    pictures.

    Raises `GoldenSetUnusable`.
    """
    if name in golden_sets():
        return _parsed(name, _read(FOLDER / f"{name}.json")), None
    folder = Path(name)
    if (folder / GOLDEN).is_file():
        return _of_folder(folder), folder
    raise GoldenSetUnusable(
        f"There is no golden set {name!r}, and no folder with {GOLDEN}: `gmr doctor --list` lists"
        " the sets."
    )


def _of_folder(folder: Path) -> GoldenSet:
    """The golden pairs of a checkpoint, as `gmr publish` writes them."""
    entries = _read(folder / GOLDEN)
    try:
        pairs = [_published(entry) for entry in entries]
    except (TypeError, KeyError, AttributeError):
        raise _unreadable(folder.name) from None
    return _parsed(folder.name, {"model": folder.resolve().name, "pairs": pairs})


def _published(entry: dict[str, Any]) -> dict[str, Any]:
    sides = {}
    for side in ("query", "document"):
        parts = []
        for part in entry[side]:
            name = "picture" if "image" in part else "text"
            parts.append({name: part.get("image", part.get("text"))})
        sides[side] = parts
    return sides | {
        "instruction": entry["instruction"],
        "logit": entry["logit"],
        "tolerance": _FP32,
        "source": f"{GOLDEN}, {entry['cell']}",
    }


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError
        return json.loads(content)
    except (OSError, ValueError, RecursionError):
        raise _unreadable(path.name) from None


def _parsed(name: str, content: Any) -> GoldenSet:
    try:
        return GoldenSet.model_validate(content)
    except ValidationError:
        raise _unreadable(name) from None


def _unreadable(name: str) -> GoldenSetUnusable:
    return GoldenSetUnusable(f"The golden set {name} cannot be read.")
