"""The base of gmr-mini: gmr-tiny with meanings of texts and pictures.

Depends on packages of public registries and on gmr-tiny as it ships. Invariant: the folder has a
manifest once it is complete, and its lineage names every package in the version that was taken.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from model_store.checkpoint import resolve
from model_store.manifest import MANIFEST
from model_store.recipes.mini.lengths import measure_lengths
from model_store.recipes.mini.network import widen
from model_store.recipes.mini.pictures.drawings import drawn
from model_store.recipes.mini.pictures.groups import write_picture_task
from model_store.recipes.mini.pictures.meanings import learn_picture_meanings
from model_store.recipes.mini.preparation import SEED, Preparation
from model_store.recipes.mini.sources.packages import PACKAGES, taken_packages, unpacked
from model_store.recipes.mini.sources.pictures.clip_art import read_clip_art
from model_store.recipes.mini.sources.pictures.emoji import SOURCE as EMOJI
from model_store.recipes.mini.sources.pictures.emoji import read_emoji
from model_store.recipes.mini.sources.pictures.named import NamedPicture, by_source
from model_store.recipes.mini.sources.pictures.stamps import read_stamps
from model_store.recipes.tiny.publish import finish, write_weights

NAME = "gmr-mini-base"
_CARD = """\
# {name}

gmr-tiny, whose states were made wider by the meanings of texts and pictures (`model_store.recipes.mini`). Its scores are right
as they are; `gmr train` weighs them.
"""


def make_base(prepared: Preparation, pictures: Sequence[NamedPicture]) -> Path:
    """Put the base together unless it is there; returns its folder, a `model` for `gmr train`."""
    folder = prepared.work / "base"
    if (folder / MANIFEST).exists():
        return folder

    shipped = resolve("gmr-tiny")
    network = widen(
        shipped.folder,
        prepared.tokenizer,
        prepared.meanings,
        lengths=measure_lengths(shipped.folder, prepared.tokenizer, prepared.pairs),
        pictures=learn_picture_meanings(
            shipped.folder,
            prepared.tokenizer,
            prepared.meanings,
            pictures,
            seed=SEED,
            report=prepared.report,
        ),
    )
    write_weights(network, prepared.tokenizer, folder)
    taken = taken_packages(prepared.sources)
    lineage = {
        "module": __name__,
        "start": {"name": shipped.name, "digest": shipped.digest},
        "seed": SEED,
        "texts": (
            f"{prepared.rows} rows of real texts, whose tokens' vectors took {prepared.taken_steps}"
            " steps towards the cosines of all-MiniLM-L6-v2"
        ),
        "pictures": f"a linear map of gmr-tiny's features to the names of {len(pictures)} pictures",
        "packages": [asdict(package) for package in taken],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    finish(folder, NAME, _CARD.format(name=NAME), lineage)
    return folder


def named_pictures(prepared: Preparation, queries: int) -> list[NamedPicture]:
    """The pictures of all packages; those that are held out become tasks of `queries` queries.

    Raises `SourceUnavailable` where a package cannot be had.
    """
    pictures = drawn(
        _read_pictures(prepared.sources), prepared.work / "pictures" / "drawn", prepared.report
    )
    for source, of_source in by_source(pictures).items():
        task = prepared.work / "held-out" / source
        if not task.exists():
            write_picture_task(task, of_source, queries, SEED)
    return pictures


def _read_pictures(sources: Path) -> Iterator[NamedPicture]:
    """Pictures of packages that are fetched to `sources` if they are not there."""
    packages = {package.name: package for package in PACKAGES}

    def folder(name: str) -> Path:
        return unpacked(packages[name], sources)

    yield from read_emoji(folder(EMOJI), folder("emojilib"))
    yield from read_stamps(folder("tuxpaint-stamps-default"))
    yield from read_clip_art(folder("openclipart-svg"))
