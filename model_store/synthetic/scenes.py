"""Pictures of coloured shapes and what is said of them: the cells T-I, I-T, I-I and IT-I.

Knows scenes and words for them, nothing of models. Invariant: no irrelevant document satisfies its
query; half of them differ from the relevant one in a single thing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

from model_store.synthetic.drawing import COLOURS, SHAPES, Group, Scene, draw_scene
from model_store.synthetic.examples import Sampler, Side, part_of
from model_store.synthetic.texts import Split

NUMBERS = {1: ("a", "one", "1"), 2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}
_WRAPS = (
    "{}",
    "{}",
    "{}",
    "a picture of {}",
    "an image showing {}",
    "{} in a picture",
    "there are {}",
    "show me {}",
    "the {}",
)


def picture(scene: Scene, rng: Random) -> Image.Image:
    """A drawing of a scene that carries the words true of it."""
    image = draw_scene(scene, rng)
    words: set[str] = set()
    for group in scene.groups:
        words |= {
            group.colour,
            plural(group.shape) if group.count > 1 else group.shape,
            *NUMBERS[group.count],
        }
    image.info["words"] = frozenset(words)
    return image


def caption(scene: Scene, rng: Random) -> str:
    """A sentence or phrase that says all of a scene."""
    groups = list(scene.groups)
    rng.shuffle(groups)
    joint = rng.choice((" and ", ", ", " next to ", " with "))
    return _wrap(
        joint.join(_noun(group.count, group.colour, group.shape, rng) for group in groups), rng
    )


@dataclass(frozen=True, slots=True)
class Want:
    """What a text asks of a picture: (count, colour, shape) of each group, None where it leaves
    that open."""

    groups: tuple[tuple[int | None, str | None, str | None], ...]

    @classmethod
    def of(cls, scene: Scene, rng: Random) -> Want:
        """All of a scene, or a part of it."""
        whole = tuple((group.count, group.colour, group.shape) for group in scene.groups)
        if rng.random() < 0.6:
            return cls(whole)
        count, colour, shape = rng.choice(whole)
        parts = (
            (None, colour, shape),
            (None, colour, shape),
            (None, colour, None),
            (None, None, shape),
            (count, None, shape),
        )
        return cls((rng.choice(parts),))

    def met_by(self, scene: Scene) -> bool:
        return all(any(_fits(want, group) for group in scene.groups) for want in self.groups)

    def say(self, rng: Random) -> str:
        return _wrap(" and ".join(_noun(*group, rng) for group in self.groups), rng)


def any_scene(rng: Random, split: Split | None = None) -> Scene:
    """A scene of one or two groups; of the given part, if one is given."""
    while True:
        scene = Scene((any_group(rng),))
        if rng.random() < 0.4:
            first, second = any_group(rng, 3), any_group(rng, 3)
            if (first.colour, first.shape) == (second.colour, second.shape):
                continue
            scene = Scene((first, second))
        if split is None or part_of(sorted(scene.groups)) == split:
            return scene


def any_group(rng: Random, most: int = 4) -> Group:
    """One to `most` equal shapes."""
    return Group(rng.randint(1, most), rng.choice(tuple(COLOURS)), rng.choice(SHAPES))


def captions(ask: Callable[[Want, Random], Side], show: Callable[[Scene, Random], Side]) -> Sampler:
    """A text that wants something, against documents that show scenes."""

    def sampler(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
        scene = any_scene(rng, split)
        want = Want.of(scene, rng)
        return ask(want, rng), [
            show(each, rng) for each in (scene, *_others(rng, split, scene, negatives, want.met_by))
        ]

    return sampler


def same_scene(show: Callable[[Scene, Random], Side]) -> Sampler:
    """A picture, against documents that show scenes; relevant is the same scene, drawn or told
    anew."""

    def sampler(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
        scene = any_scene(rng, split)
        others = _others(
            rng, split, scene, negatives, lambda other: sorted(other.groups) == sorted(scene.groups)
        )
        return (picture(scene, rng),), [show(each, rng) for each in (scene, *others)]

    return sampler


def modified(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
    """A picture and a change to it, against pictures: of colour, of shape, or of number (IT-I)."""
    while True:
        seen = any_group(rng)
        wanted = _near(Scene((seen,)), rng).groups[0]
        if part_of((seen, wanted)) == split:
            break
    if wanted.colour != seen.colour:
        change = rng.choice(("the same in {}", "but {}", "make it {}", "{} instead of {}")).format(
            wanted.colour, seen.colour
        )
    elif wanted.shape != seen.shape:
        noun = _noun(wanted.count, None, wanted.shape, rng)
        change = rng.choice(
            ("the same but {}", "{} of this colour", "{} instead", "make it {}")
        ).format(noun)
    else:
        number = rng.choice(NUMBERS[wanted.count][-2:])
        change = rng.choice(("the same but {}", "{} of them", "{} instead", "make it {}")).format(
            number
        )
    target = Scene((wanted,))
    others = [
        Scene((seen,)),
        *_others(
            rng, split, target, negatives - 1, lambda other: other in (target, Scene((seen,)))
        ),
    ]
    return (picture(Scene((seen,)), rng), change), [
        (picture(each, rng),) for each in (target, *others)
    ]


def _others(
    rng: Random, split: Split, scene: Scene, negatives: int, excluded: Callable[[Scene], bool]
) -> list[Scene]:
    """Scenes that are not `excluded`, half of them near misses of `scene` as far as there are any;
    in training, none held out."""
    found: list[Scene] = []
    tries = 0
    while len(found) < negatives:
        tries += 1
        near = len(found) < negatives // 2 and tries < 8 * negatives
        other = _near(scene, rng) if near else any_scene(rng)
        hidden = split == "train" and part_of(sorted(other.groups)) != split
        if not hidden and not excluded(other) and other not in found:
            found.append(other)
    return found


def _near(scene: Scene, rng: Random) -> Scene:
    """The same scene but for one thing."""
    groups = list(scene.groups)
    place = rng.randrange(len(groups))
    count, colour, shape = groups[place].count, groups[place].colour, groups[place].shape
    match rng.randrange(3):
        case 0:
            count = rng.choice(
                [other for other in range(1, 5 if len(groups) == 1 else 4) if other != count]
            )
        case 1:
            colour = rng.choice([other for other in COLOURS if other != colour])
        case _:
            shape = rng.choice([other for other in SHAPES if other != shape])
    groups[place] = Group(count, colour, shape)
    return Scene(tuple(groups))


def _fits(want: tuple[int | None, str | None, str | None], group: Group) -> bool:
    count, colour, shape = want
    return (
        count in (None, group.count)
        and colour in (None, group.colour)
        and shape in (None, group.shape)
    )


def _wrap(text: str, rng: Random) -> str:
    said = rng.choice(_WRAPS).format(text)
    return said.capitalize() + rng.choice((".", "")) if rng.random() < 0.4 else said


def _noun(count: int | None, colour: str | None, shape: str | None, rng: Random) -> str:
    noun = shape or rng.choice(("thing", "shape", "object"))
    several = rng.random() < 0.5 if count is None else count > 1
    number = rng.choice(NUMBERS[count]) if count else rng.choice(("", "a")) if not several else ""
    said = " ".join(word for word in (number, colour, plural(noun) if several else noun) if word)
    return re.sub(r"\ba (?=[aeiou])", "an ", said)


def plural(noun: str) -> str:
    """More than one of a shape."""
    return noun + ("es" if noun.endswith("ss") else "s")
