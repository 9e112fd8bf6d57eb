"""`python -m model_store.recipes.tiny.next_base WORK`: the next gmr-tiny's base, of the language
model and the vision tower that were trained apart.

Depends on the states that `distillation` and `naming` left in WORK. Invariant: the folder has a
manifest once it is complete, and its lineage names every package in the version that was taken.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model_store.errors import DataError
from model_store.manifest import MANIFEST
from model_store.recipes.tiny.distillation.preparation import SEED, Preparation
from model_store.recipes.tiny.distillation.stage import STATE
from model_store.recipes.tiny.publish import finish, write_weights
from model_store.recipes.tiny.sources.packages import source_table, taken_packages

NAME = "gmr-tiny-base"
_CARD = """\
# {name}

The base of the next gmr-tiny. Its language model learnt a sentence encoder's scores of real texts
for {texts} steps, its vision tower to name pictures for {pictures} steps. Fine-tune it with
`gmr train`.

{table}
"""


def main() -> None:
    """Write the base to WORK/base unless it is there."""
    parser = argparse.ArgumentParser(description="Put the next gmr-tiny's base together.")
    parser.add_argument("work", type=Path, help="where the stages keep their results")
    make_base(parser.parse_args().work)


def make_base(work: Path) -> Path:
    """The base's folder; raises `DataError` where a stage has left no state."""
    folder = work / "base"
    if (folder / MANIFEST).exists():
        return folder

    prepared = Preparation(work, 0, time.monotonic())
    texts, pictures = _state(work / "distil" / STATE), _state(work / "naming" / STATE)
    network = prepared.network()
    network.load_state_dict(texts["network"])
    network.model.visual.load_state_dict(pictures["visual"])
    write_weights(network, prepared.tokenizer, folder)

    taken = taken_packages(prepared.sources)
    steps = {"texts": texts["step"], "pictures": pictures["step"]}
    lineage = {
        "module": "model_store.recipes.tiny.next_base",
        "seed": SEED,
        "steps": steps,
        "packages": [asdict(package) for package in taken],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    card = _CARD.format(name=NAME, table=source_table(taken), **steps)
    finish(folder, NAME, card, lineage)
    return folder


def _state(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise DataError(f"{path} is not there: the stage before has not run.")
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


if __name__ == "__main__":
    main()
