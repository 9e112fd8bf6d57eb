"""`python -m model_store.recipes.tiny.next_base WORK`: the next gmr-tiny's base, of the parts that
were trained one by one.

Depends on what `texts`, `naming` and `signs` left in WORK. Invariant: the folder has a
manifest once it is complete, and its lineage names every package in the version that was taken.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import asdict
from pathlib import Path

import torch

from model_store.manifest import MANIFEST
from model_store.recipes.tiny.naming import stage as naming
from model_store.recipes.tiny.publish import finish, write_weights
from model_store.recipes.tiny.signs import stage as signs_stage
from model_store.recipes.tiny.signs.stage import middle_layers
from model_store.recipes.tiny.sources.packages import source_table, taken_packages
from model_store.recipes.tiny.steps import saved_state
from model_store.recipes.tiny.texts.preparation import SEED, Preparation

NAME = "gmr-tiny-base"
_CARD = """\
# {name}

The base of the next gmr-tiny. Its tokens' vectors learnt a sentence encoder's meanings of real
texts in {averages} steps, its vision tower the names of pictures in {pictures}, its middle layers
signs of the generated cells in {signs}. Fine-tune it with `gmr train`.

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

    prepared = Preparation(work, time.monotonic())
    network = prepared.network()
    pictures = saved_state(work / "naming" / naming.STATE)
    network.model.visual.load_state_dict(pictures["weights"])
    signs = saved_state(work / "signs" / signs_stage.STATE)
    middle_layers(network).load_state_dict(signs["weights"])
    write_weights(network, prepared.tokenizer, folder)

    taken = taken_packages(prepared.sources)
    steps = {
        "averages": prepared.taken_steps,
        "pictures": pictures["step"],
        "signs": signs["step"],
    }
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


if __name__ == "__main__":
    main()
