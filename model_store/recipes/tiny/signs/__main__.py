"""`python -m model_store.recipes.tiny.signs WORK`: the next gmr-tiny's middle layers.

Depends on what `model_store.recipes.tiny.texts` and `.naming` left in WORK. Invariant: a run that
was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from model_store.recipes.tiny.naming import stage as naming
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.signs.stage import Signs, learn_signs
from model_store.recipes.tiny.steps import saved_state
from model_store.recipes.tiny.texts.preparation import SEED, Preparation


def main() -> None:
    """Train the middle layers; raises `DataError` where the vision tower was not trained."""
    given = _parser().parse_args()
    torch.set_num_threads(given.threads)
    prepared = Preparation(given.work, time.monotonic())
    network = prepared.network()
    tower = saved_state(given.work / "naming" / naming.STATE)
    network.model.visual.load_state_dict(tower["weights"])
    learn_signs(
        network,
        PackedBatcher(prepared.family, prepared.tokenizer),
        settings=Signs(steps=given.steps, seed=SEED, words=given.words, queries=given.queries),
        folder=given.work / "signs",
        report=prepared.report,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Teach the next gmr-tiny signs.")
    parser.add_argument("work", type=Path, help="where the stages keep their results")
    parser.add_argument("--steps", type=int, default=1500, help="training steps")
    parser.add_argument("--words", type=int, default=300, help="the first steps, on texts alone")
    parser.add_argument("--queries", type=int, default=9, help="queries of a step")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser


if __name__ == "__main__":
    main()
