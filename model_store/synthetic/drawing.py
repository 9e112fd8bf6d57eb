"""Drawn pictures: coloured shapes, and rendered pages with a headline and a chart.

Does not depend on prompts or models. Invariant: a description (`Scene`, `Page`) has all that a
caption may claim; everything else of a drawing (position, size, tilt, background, shade) is random
and has no meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from random import Random

from PIL import Image, ImageDraw, ImageFont

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "green": (35, 150, 60),
    "blue": (35, 70, 205),
    "yellow": (240, 210, 30),
    "orange": (245, 135, 25),
    "purple": (130, 45, 160),
    "black": (25, 25, 25),
    "pink": (245, 130, 180),
}
BACKGROUNDS = ((255, 255, 255), (255, 255, 255), (245, 240, 225), (225, 232, 240), (210, 210, 210))
SCALE = 2
"""Drawings are rendered this many times larger and scaled down, for smooth edges."""

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""Left, top, right and bottom."""
Pen = ImageDraw.ImageDraw
Brush = Callable[[Pen, float, float, float, Colour, Random], None]
"""Draws one shape: pen, centre's x and y, radius, colour, generator."""


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """One to four equal shapes of a picture.

    `examples.split_of` digests its `repr`: another name of the class or of a field would be other
    training data.
    """

    count: int
    colour: str
    shape: str


@dataclass(frozen=True, slots=True)
class Scene:
    """The content of a picture: one or two groups, in no order."""

    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The content of a page: two headline words, a kind of figure, and the year in its corner."""

    headline: tuple[str, str]
    figure: str
    year: int


def draw_scene(scene: Scene, rng: Random) -> Image.Image:
    """A picture of `scene`, between 112 and 168 pixels a side."""
    width, height = rng.choice(((112, 112), (112, 112), (140, 140), (168, 112), (112, 140)))
    image = Image.new("RGB", (width * SCALE, height * SCALE), rng.choice(BACKGROUNDS))
    pen = ImageDraw.Draw(image)

    shapes: list[Group] = []
    for group in scene.groups:
        shapes += [group] * group.count
    rng.shuffle(shapes)

    positions = _positions(len(shapes), width, height, rng)
    for drawn, (x, y, room) in zip(shapes, positions, strict=True):
        radius = room * rng.uniform(0.62, 0.92)
        colour = _shade(drawn.colour, rng)
        _SHAPES[drawn.shape](pen, x * SCALE, y * SCALE, radius * SCALE, colour, rng)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def draw_page(page: Page, rng: Random) -> Image.Image:
    """A document page of 224 x 168 pixels: headline, year, some grey lines, and a figure."""
    width, height = 224, 168
    image = Image.new("RGB", (width, height), (255, 255, 255))
    pen = ImageDraw.Draw(image)

    colour = rng.choice(((0, 0, 0), (20, 30, 80), (90, 15, 20)))
    left, top = rng.randint(4, 14), rng.randint(2, 8)
    size = rng.randint(22, 26)
    first, second = page.headline
    pen.text((left, top), first.capitalize(), fill=colour, font=_font(size))
    pen.text((left, top + size + 3), second, fill=colour, font=_font(size))
    pen.text((width - 44, height - 20), str(page.year), fill=(60, 60, 60), font=_font(15))

    box = (left, top + 2 * size + 14, left + rng.randint(84, 104), height - rng.randint(8, 16))
    _FIGURES[page.figure](pen, box, rng)
    for y in range(box[1] + 4, height - 26, 9):
        pen.line((box[2] + 12, y, width - rng.randint(10, 40), y), fill=(170, 170, 170), width=2)
    return image


def _positions(
    count: int, width: int, height: int, rng: Random
) -> list[tuple[float, float, float]]:
    """The centre and half-width of `count` squares that do not overlap, somewhere in the
    picture."""
    columns = 1 if count == 1 else 2 if count <= 4 else 3
    rows = math.ceil(count / columns)
    if rng.random() < 0.5 and height >= width:
        columns, rows = rows, columns

    side = min(width / columns, height / rows)
    share = rng.uniform(0.5, 0.95) if count == 1 else rng.uniform(0.75, 0.97)
    room = side / 2 * share
    free_x, free_y = width / columns / 2 - room, height / rows / 2 - room

    cells = list(product(range(rows), range(columns)))
    positions = []
    for row, column in rng.sample(cells, count):
        x = (column + 0.5) * width / columns + rng.uniform(-free_x, free_x)
        y = (row + 0.5) * height / rows + rng.uniform(-free_y, free_y)
        positions.append((x, y, room))
    return positions


def _shade(name: str, rng: Random) -> Colour:
    """A colour near the one of that name."""
    red, green, blue = [
        max(0, min(255, channel + rng.randint(-18, 18))) for channel in COLOURS[name]
    ]
    return red, green, blue


def _polygon(angles: list[float], radii: list[float], tilt: float) -> Brush:
    """A polygon with corners at these angles and radii, turned by at most `tilt`."""

    def brush(pen: Pen, x: float, y: float, radius: float, fill: Colour, rng: Random) -> None:
        turn = rng.uniform(-tilt, tilt)
        corners = []
        for angle, scale in zip(angles, radii, strict=True):
            right = radius * scale * math.sin(angle + turn)
            up = radius * scale * math.cos(angle + turn)
            corners.append((x + right, y - up))
        pen.polygon(corners, fill=fill)

    return brush


def _circle(pen: Pen, x: float, y: float, radius: float, fill: Colour, rng: Random) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _ring(pen: Pen, x: float, y: float, radius: float, fill: Colour, rng: Random) -> None:
    pen.ellipse(
        (x - radius, y - radius, x + radius, y + radius),
        outline=fill,
        width=max(2, round(radius * 0.34)),
    )


def _heart(pen: Pen, x: float, y: float, radius: float, fill: Colour, rng: Random) -> None:
    corners = []
    for step in range(48):
        turn = step * math.tau / 48
        right = radius * math.sin(turn) ** 3
        up = (
            radius
            * (
                13 * math.cos(turn)
                - 5 * math.cos(2 * turn)
                - 2 * math.cos(3 * turn)
                - math.cos(4 * turn)
            )
            / 16
        )
        corners.append((x + right, y - up))
    pen.polygon(corners, fill=fill)


def _regular(corners: int, first: float = 0.0) -> list[float]:
    """The angles of a regular polygon."""
    return [first + math.tau * corner / corners for corner in range(corners)]


def _cross() -> Brush:
    arm = math.atan2(0.33, 1.0)
    angles: list[float] = []
    for quarter in _regular(4):
        angles += [quarter - arm, quarter + arm, quarter + math.pi / 4]
    return _polygon(angles, [1.05, 1.05, 0.47] * 4, 0.12)


_SHAPES: dict[str, Brush] = {
    "circle": _circle,
    "square": _polygon(_regular(4, math.pi / 4), [1.15] * 4, 0.12),
    "triangle": _polygon(_regular(3), [1.1] * 3, 0.15),
    "star": _polygon(_regular(10), [1.1, 0.45] * 5, 0.3),
    "cross": _cross(),
    "diamond": _polygon(_regular(4), [1.1, 0.68, 1.1, 0.68], 0.08),
    "ring": _ring,
    "heart": _heart,
}
SHAPES = tuple(_SHAPES)


def _bars(pen: Pen, box: Box, rng: Random) -> None:
    left, top, right, bottom = box
    step = (right - left) / 5
    for bar in range(5):
        x = left + bar * step
        bar_top = bottom - rng.uniform(0.2, 1.0) * (bottom - top)
        pen.rectangle((x, bar_top, x + step * 0.7, bottom), fill=_any_colour(rng))


def _pie(pen: Pen, box: Box, rng: Random) -> None:
    left, top, right, bottom = box
    side = min(right - left, bottom - top)
    circle = (left, top, left + side, top + side)
    start = rng.uniform(0, 360)
    for degrees in (130, 100, 80, 50):
        pen.pieslice(circle, start, start + degrees, fill=_any_colour(rng))
        start += degrees


def _table(pen: Pen, box: Box, rng: Random) -> None:
    left, top, right, bottom = box
    for row in range(5):
        y = top + row * (bottom - top) // 4
        pen.line((left, y, right, y), fill=(40, 40, 40), width=1)
    for column in range(4):
        x = left + column * (right - left) // 3
        pen.line((x, top, x, bottom), fill=(40, 40, 40), width=1)


def _curve(pen: Pen, box: Box, rng: Random) -> None:
    left, top, right, bottom = box
    pen.line((left, top, left, bottom, right, bottom), fill=(40, 40, 40), width=2)
    points = [(left + step * (right - left) / 6, rng.uniform(top, bottom)) for step in range(7)]
    pen.line(points, fill=_any_colour(rng), width=3)


_FIGURES: dict[str, Callable[[Pen, Box, Random], None]] = {
    "bar chart": _bars,
    "pie chart": _pie,
    "table": _table,
    "line chart": _curve,
}
FIGURES = tuple(_FIGURES)


def _any_colour(rng: Random) -> Colour:
    return _shade(rng.choice(tuple(COLOURS)), rng)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
