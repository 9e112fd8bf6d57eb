"""The pictures of the playground's samples, drawn by the generator of gmr-tiny's training data.

`python -m tests.browser.samples` writes them. Invariant: a picture's pixels follow from its name.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from PIL import Image

from model_store.synthetic.drawing import Group, Page, Scene, draw_page, draw_scene

PICTURES = Path(__file__).parents[2] / "service/gateway/playground/pictures"

_SCENES = {
    "two-red-circles": [Group(2, "red", "circle")],
    "three-red-circles": [Group(3, "red", "circle")],
    "two-red-squares": [Group(2, "red", "square")],
    "two-blue-circles": [Group(2, "blue", "circle")],
    "red-circle": [Group(1, "red", "circle")],
    "star-and-circles": [Group(2, "red", "circle"), Group(1, "green", "star")],
    "three-green-stars": [Group(3, "green", "star")],
    "yellow-heart": [Group(1, "yellow", "heart")],
    "purple-ring": [Group(1, "purple", "ring")],
    "four-orange-triangles": [Group(4, "orange", "triangle")],
}
_PAGES = {
    "climate-forests": Page(("climate", "forests"), "line chart", 2021),
    "climate-ocean": Page(("climate", "ocean"), "bar chart", 2019),
    "forests-rivers": Page(("forests", "rivers"), "line chart", 2011),
    "money-sports": Page(("money", "sports"), "pie chart", 2003),
    "museums-painting": Page(("museums", "painting"), "table", 1998),
    "winter-weather": Page(("winter", "weather"), "bar chart", 2024),
}


def drawn() -> dict[str, Image.Image]:
    """The pictures by file name."""
    pictures: dict[str, Image.Image] = {}
    for name, groups in _SCENES.items():
        pictures[f"{name}.png"] = draw_scene(Scene(tuple(groups)), Random(name))
    for name, page in _PAGES.items():
        pictures[f"page-{name}.png"] = draw_page(page, Random(name))
    return pictures


if __name__ == "__main__":
    for name, picture in drawn().items():
        picture.save(PICTURES / name, optimize=True)
