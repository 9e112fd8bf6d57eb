"""The names of first stages.

Does not depend on a dataset, and loads no model. Invariant: a name that is parsed is one of a kind
that can be opened; a model's files are looked at when it is opened.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model_store.evaluation.tasks.dataset import TaskUnusable

GME = "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct"
"""The first stage of the paper, at the commit that mteb evaluates."""
GME_REVISION = "ce765ae71b8cdb208203cd8fb64a170b1b84293a"
MAX_NAME_CHARS = 1_024
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_REVISION = re.compile(r"[\w./-]{1,96}", re.ASCII)
_FORMS = (
    "bm25, gme, gme:MODEL, own, run:FILE, or a sentence-transformers model: a folder, or OWNER/NAME"
    " of the hub"
)


@dataclass(frozen=True, slots=True)
class FirstStage:
    """A first stage.

    `source` is the model of "dense" and "gme", a folder or a hub id, and the file of "run"; None
    for the others. `revision` is that of a hub id.
    """

    kind: Literal["bm25", "dense", "gme", "own", "run"]
    source: str | None = None
    revision: str | None = None


def parse_name(name: str) -> FirstStage:
    """The first stage of a name; raises `TaskUnusable`.

    `bm25`, `own`, `run:FILE`; `gme`, or `gme:MODEL` for other weights of it; any other is a
    sentence-transformers model. A model is a folder or a hub id, which may have a revision:
    `OWNER/NAME@REVISION`.
    """
    kind, colon, rest = name.partition(":")
    if len(name) > MAX_NAME_CHARS:
        raise TaskUnusable(f"A first stage has a name of up to {MAX_NAME_CHARS} characters.")
    if name in ("bm25", "own"):
        return FirstStage("bm25" if name == "bm25" else "own")
    if name == "gme":
        return FirstStage("gme", GME, GME_REVISION)
    if colon and kind == "run":
        return _run(rest)

    is_gme = bool(colon) and kind == "gme"
    source, revision = _model(rest if is_gme else name, name)
    return FirstStage("gme" if is_gme else "dense", source, revision)


def _run(file: str) -> FirstStage:
    if not Path(file).is_file():
        raise TaskUnusable(f"The first stage run:{file} names no file.")
    return FirstStage("run", file)


def _model(model: str, name: str) -> tuple[str, str | None]:
    """A folder, or a hub id and its revision."""
    if model and Path(model).is_dir():
        return model, None

    source, at, revision = model.partition("@")
    if not _HUB_ID.fullmatch(source) or (at and not _REVISION.fullmatch(revision)):
        raise TaskUnusable(f"There is no first stage {name!r}: it is {_FORMS}.")
    return source, revision or None
