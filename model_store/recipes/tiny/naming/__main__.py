"""`python -m model_store.recipes.tiny.naming WORK`: the next gmr-tiny's vision tower, and rows of
pictures.

Depends on packages of public registries and on the tokens' meanings, which it makes in WORK where
they are not there, as `model_store.recipes.tiny.texts` does: run that first, not beside it.
Invariant: a run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from model_store.recipes.tiny.naming.drawings import drawn
from model_store.recipes.tiny.naming.groups import picture_rows, write_picture_task
from model_store.recipes.tiny.naming.stage import Naming, learn_names
from model_store.recipes.tiny.sources.packages import PACKAGES, unpacked
from model_store.recipes.tiny.sources.pictures.clip_art import read_clip_art
from model_store.recipes.tiny.sources.pictures.emoji import SOURCE as EMOJI
from model_store.recipes.tiny.sources.pictures.emoji import read_emoji
from model_store.recipes.tiny.sources.pictures.named import NamedPicture
from model_store.recipes.tiny.sources.pictures.stamps import read_stamps
from model_store.recipes.tiny.texts.preparation import SEED, Preparation
from model_store.training.data.row_files import write_examples


def main() -> None:
    """Draw the pictures, write rows and held-out ones, and train."""
    given = _parser().parse_args()
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    prepared = Preparation(given.work, time.monotonic())
    folder = given.work / "pictures"
    pictures = drawn(read_pictures(prepared.sources), folder / "drawn", prepared.report)
    if not (folder / "rows.jsonl").exists():
        write_examples(folder / "rows.jsonl", picture_rows(pictures, given.rows, SEED))
    for source in sorted({picture.source for picture in pictures}):
        task = given.work / "held-out" / source
        if not task.exists():
            of_source = [picture for picture in pictures if picture.source == source]
            write_picture_task(task, of_source, given.queries, SEED)

    settings = Naming(steps=given.steps, seed=SEED, rate=given.rate)
    learn_names(
        prepared.network(),
        prepared.batcher,
        pictures,
        settings=settings,
        folder=given.work / "naming",
        report=prepared.report,
    )


def read_pictures(sources: Path) -> Iterator[NamedPicture]:
    """Pictures of all packages, which are fetched to `sources` if they are not there.

    Raises `SourceUnavailable`.
    """
    packages = {package.name: package for package in PACKAGES}

    def folder(name: str) -> Path:
        return unpacked(packages[name], sources)

    yield from read_emoji(folder(EMOJI), folder("emojilib"))
    yield from read_stamps(folder("tuxpaint-stamps-default"))
    yield from read_clip_art(folder("openclipart-svg"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Teach the next gmr-tiny to name pictures.")
    parser.add_argument("work", type=Path, help="where the stages keep their results")
    parser.add_argument("--rows", type=int, default=8000, help="rows of pictures")
    parser.add_argument("--queries", type=int, default=200, help="held-out queries a source")
    parser.add_argument("--steps", type=int, default=4000, help="training steps; 0: prepare alone")
    parser.add_argument("--rate", type=float, default=2e-3, help="Muon's")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser


if __name__ == "__main__":
    main()
