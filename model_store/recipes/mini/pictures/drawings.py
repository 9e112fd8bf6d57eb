"""Named pictures as small PNG files, and as they are shown in training.

Depends on Pillow and resvg. Invariant: a picture's file is made once; one that cannot be drawn is
left out, and counted.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random

import resvg_py
from PIL import Image

from model_store.files import atomic_path
from model_store.recipes.mini.sources.pictures.named import NamedPicture
from model_store.recipes.tiny.train import Report

SIDE = 168
"""Pixels of the longer side of a kept picture."""
_SHOWN = (112, 140, 168)
_MOST_PIXELS = 4_000_000


def drawn(
    pictures: Iterable[NamedPicture], folder: Path, report: Report = lambda line: None
) -> list[NamedPicture]:
    """The pictures as PNG files in `folder`, without those that cannot be drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    kept: list[NamedPicture] = []
    failed = 0
    for picture in pictures:
        digest = hashlib.sha256(picture.path.read_bytes()).hexdigest()[:16]
        path = folder / f"{digest}.png"
        if not path.exists():
            image = _opened(picture.path)
            if image is None:
                failed += 1
                continue
            with atomic_path(path, sync_file=False) as draft:
                image.save(draft, "PNG")
        kept.append(replace(picture, path=path))
    report(f"{len(kept)} pictures, and {failed} that cannot be drawn")
    return kept


def shown(path: Path, rng: Random) -> Image.Image:
    """A kept picture on a light background, in one of three sizes, a little off the middle."""
    side = rng.choice(_SHOWN)
    colour = tuple(rng.randrange(200, 256) for _ in range(3)) if rng.random() < 0.5 else (255,) * 3
    ground = Image.new("RGB", (side, side), colour)
    with Image.open(path) as kept:
        image = kept.convert("RGBA")
    scale = side * rng.uniform(0.75, 1.0) / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC)
    corner = tuple(rng.randint(0, side - length) for length in size)
    ground.paste(image, (corner[0], corner[1]), image)
    return ground


def _opened(path: Path) -> Image.Image | None:
    """A file's picture with transparency, at most `SIDE` long; None where nothing is drawn."""
    try:
        content = path.read_bytes()
        if path.suffix == ".svg":
            content = resvg_py.svg_to_bytes(svg_string=content.decode("utf-8"), width=SIDE, dpi=96)
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            found = image.convert("RGBA")
    except (OSError, ValueError):
        return None

    found.thumbnail((SIDE, SIDE))
    return found if found.getchannel("A").getbbox() else None
